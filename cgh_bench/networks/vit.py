"""Plain vision transformers, as timm builds them; position embeddings resampled as others do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cgh_bench.networks.wrapped import Transformer

if TYPE_CHECKING:
    from cgh_bench.backbones.vit import ViT


class ViTBackbone(Transformer):
    """A vision transformer without its classifier: timm's network and names.

    For images of another size than `architecture.image_side` the position embeddings of the patches are resampled to
    the new grid as `architecture.positions` says; timm's way is bicubic with antialiasing.
    """

    def __init__(self, architecture: ViT) -> None:
        network = _network()(
            **architecture.arguments(),
            norm_layer=partial(nn.LayerNorm, eps=architecture.norm_eps),
            num_classes=0,
            global_pool="",
            dynamic_img_size=True,
        )
        network.positions = architecture.positions
        super().__init__(network)
        self.architecture = architecture


@cache
def _network() -> Any:
    """The class of timm with positions that are resampled as `positions` says; importing it takes a second."""
    from timm.models.vision_transformer import VisionTransformer

    class Network(VisionTransformer):
        """A network of timm."""

        positions = "timm"

        def _pos_embed(self, patches: Tensor) -> Tensor:
            grid = patches.shape[1:3]
            if self.positions == "timm" or tuple(grid) == tuple(self.patch_embed.grid_size):
                return super()._pos_embed(patches)
            prefix = 0 if self.no_embed_class else self.num_prefix_tokens
            positions: Any = self.pos_embed
            first, rest = positions[:, :prefix], positions[:, prefix:]
            embedding = torch.cat([first, _resampled(rest, grid, with_offset=self.positions == "dino")], dim=1)
            tokens = [t.expand(len(patches), -1, -1) for t in (self.cls_token, self.reg_token) if t is not None]
            if self.no_embed_class:
                return torch.cat([*tokens, patches.flatten(1, 2) + embedding], dim=1)
            return torch.cat([*tokens, patches.flatten(1, 2)], dim=1) + embedding

    return Network


def _resampled(positions: Tensor, grid: Sequence[int], with_offset: bool) -> Tensor:
    """`positions` (1, N, D) of a square for another grid, bicubic without antialiasing, as transformers does.

    DINO and DINOv2 (`with_offset`) give the ratio of the sides instead of the new sides, and 0.1 is added to these
    (facebookresearch/dino vision_transformer.py, facebookresearch/dinov2 dinov2/models/vision_transformer.py).
    """
    side = math.isqrt(positions.shape[1])
    square = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    how: dict[str, Any] = {"size": tuple(grid)}
    if with_offset:
        how = {"scale_factor": tuple((length + 0.1) / side for length in grid)}
    found = nn.functional.interpolate(square, mode="bicubic", **how)
    return found.permute(0, 2, 3, 1).flatten(1, 2)
