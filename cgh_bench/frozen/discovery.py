"""LOST: one box of an object from the similarity of an image's patches alone.

Source: Siméoni et al., Localizing Objects with Self-Supervised Transformers and no Labels, 2021
(https://arxiv.org/abs/2109.14279), in the form of valeoai/LOST@fcedbec `object_discovery.py` and `main_lost.py`.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgh_bench.networks.base import Backbone

Box = NDArray[np.float64]
"""(4,) left, top, right, bottom in pixels."""


def positions(backbone: Backbone, inputs: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The features (N, D) of an image's positions, row by row, and the grid.

    Of a vision transformer in timm's form the keys of the last attention; of other networks the last map,
    layer-normalised over positions and channels together.

    Args:
        backbone: the network.
        inputs: (1, 3, H, W) preprocessed, whose sides are multiples of the stride.
    """
    stride = list(backbone.stages.values())[-1].stride
    grid = inputs.shape[2] // stride, inputs.shape[3] // stride
    blocks = getattr(getattr(backbone, "network", None), "blocks", None)
    attention: Any = getattr(blocks[-1], "attn", None) if isinstance(blocks, torch.nn.Sequential) else None
    if not isinstance(getattr(attention, "qkv", None), torch.nn.Linear) or not hasattr(backbone, "prefix"):
        found = list(backbone.pyramid(inputs).values())[-1][0]
        vectors = found.flatten(1).T
        return torch.nn.functional.layer_norm(vectors, vectors.shape), (found.shape[1], found.shape[2])
    held: list[Tensor] = []
    handle = attention.qkv.register_forward_hook(lambda module, given, output: held.append(output))
    try:
        backbone(inputs)
    finally:
        handle.remove()
    return held[-1][0, int(backbone.prefix) :].chunk(3, dim=1)[1], grid  # type: ignore[arg-type]


def object_box(features: Tensor, grid: tuple[int, int], stride: tuple[float, float], most: int) -> Box:
    """The box around the connected positions that are like the seed: the position that fewest others are like.

    Args:
        features: (N, D).
        grid: rows and columns of the N positions.
        stride: pixels of the image per row and per column.
        most: the number of positions, those with the fewest similar ones, that may join the seed.
    """
    from scipy import ndimage

    similarity = (features @ features.T).double()
    alike = similarity > 0
    degree = alike.sum(dim=1) - alike.diagonal().long()
    order = degree.argsort(stable=True)
    seed, few = order[0], order[:most]
    object_like = similarity[few[similarity[seed, few] > 0]].sum(dim=0) > 0
    object_like[seed] = True
    parts, _ = ndimage.label(object_like.reshape(grid).cpu().numpy())
    rows, columns = np.nonzero(parts == parts.flat[int(seed)])
    down, across = stride
    return np.array([columns.min() * across, rows.min() * down, (columns.max() + 1) * across, (rows.max() + 1) * down])


def overlaps(box: Box, others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The intersection over union of a box with each of the others (n, 4), (n,)."""
    least, most = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = (most - least).clip(0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return shared / ((box[2:] - box[:2]).prod() + areas - shared)
