"""Several features of the same images by one pass of the trunk."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cgh_bench.backbones.resnet import Backbone, hypercolumn

if TYPE_CHECKING:
    from cgh_bench.backbones.vit_backbone import ViTBackbone


def pooled(trunk: "Backbone | ViTBackbone", images: Tensor, targets: Sequence[tuple[str, ...]]) -> list[Tensor]:
    """What `trunk.pooled` gives for each of the `targets` of preprocessed `images` (B, 3, H, W): (B, D) each."""
    if isinstance(trunk, Backbone):
        maps = trunk.pyramid(images)
        return [hypercolumn(maps, stages).mean(dim=(2, 3)) for stages in targets]
    names = tuple(dict.fromkeys(chain.from_iterable(targets)))
    columns = dict(zip(names, trunk.pooled(images, names).chunk(len(names), dim=1), strict=True))
    return [torch.cat([columns[name] for name in target], dim=1) for target in targets]
