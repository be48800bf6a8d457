"""What heads on maps minimise: cross-entropy of pixels or patches, SigLoss of depth, angles of normals."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cgh_bench.data.segmented import VOID
from cgh_bench.frozen.patches import Grid


def as_maps(outputs: Tensor, grid: Grid) -> Tensor:
    """Outputs (B, P, C) for patches of a grid as maps (B, C, h, w)."""
    return outputs.transpose(1, 2).reshape(len(outputs), -1, *grid)


def resize(maps: Tensor, size: tuple[int, ...], upsampling: str) -> Tensor:
    """Maps (B, C, h, w) at another size (H, W), `bilinear` between the centres of pixels or `nearest`."""
    corners = {} if upsampling == "nearest" else {"align_corners": False}
    return F.interpolate(maps, size, mode=upsampling, **corners)


def pixel_cross_entropy(outputs: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """The mean over the pixels of `truth` (B, H, W) that have a class, of outputs resized to them, bilinear."""
    resized = resize(as_maps(outputs, grid), truth.shape[1:], "bilinear")
    known = (truth != VOID).sum().clamp(min=1)
    return F.cross_entropy(resized, truth.long(), ignore_index=VOID, reduction="sum") / known


def patch_cross_entropy(outputs: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """The same where each pixel has the output of its patch, from the number of pixels of each class in a patch."""
    counts = patch_counts(truth, grid, outputs.shape[2])
    return -(outputs.log_softmax(dim=2) * counts).sum() / counts.sum().clamp(min=1)


def patch_counts(truth: Tensor, grid: Grid, classes: int) -> Tensor:
    """How many pixels of each patch of `truth` (B, H, W) have each class, (B, P, C)."""
    batch, (rows, columns) = len(truth), grid
    tiles = truth.view(batch, rows, truth.shape[1] // rows, columns, truth.shape[2] // columns)
    pixels = tiles.transpose(2, 3).reshape(batch * rows * columns, -1).long()
    places = torch.where(pixels == VOID, classes, pixels)
    places += torch.arange(len(pixels), device=pixels.device)[:, None] * (classes + 1)
    counted = torch.bincount(places.flatten(), minlength=len(pixels) * (classes + 1))
    return counted.view(batch, rows * columns, classes + 1)[:, :, :classes]


def depth_of_bins(outputs: Tensor, bins: Tensor) -> Tensor:
    """The expected depth (B, P) of outputs (B, P, N) for the depths (N,) of bins.

    Their weights are the outputs above zero plus 0.1, divided by their sum ("linear" norm of DINOv2 and DINOv3).
    """
    weights = outputs.relu() + 0.1
    return weights @ bins / weights.sum(dim=2)


SIG_EPSILON = 1e-3
SIG_MEAN = 0.15
"""How much the squared mean counts beside the variance."""
SIG_WARMUP = 100
"""Steps in which the squared mean counts alone."""


def sig_loss(depth: Tensor, truth: Tensor, known: Tensor, step: int) -> Tensor:
    """SigLoss, the root of variance and weighted squared mean of the differences of logarithms; zero if none is known.

    As zhyever/Monocular-Depth-Estimation-Toolbox has it, whose values DINOv2 and DINOv3 took.

    Args:
        depth: predicted, (B, H, W), above zero.
        truth: of the same shape.
        known: which pixels count.
        step: from 0.
    """
    difference = torch.log(depth[known] + SIG_EPSILON) - torch.log(truth[known] + SIG_EPSILON)
    if len(difference) < 2:
        return depth.sum() * 0
    squared = SIG_MEAN * difference.mean() ** 2
    if step >= SIG_WARMUP:
        squared = squared + difference.var()
    return squared.clamp(min=1e-12).sqrt()


LEAST_KAPPA = 1.01
"""Added to the ELU, so that the least is 0.01."""


def angular_loss(outputs: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """The mean angle between vectors in radians, weighted by a predicted certainty; zero if none is known.

    As mbanani/probe3d@a1f1464 evals/utils/losses.py has it, after https://arxiv.org/abs/2109.09881.

    Args:
        outputs: (B, 4, H, W): a vector of any length, and the certainty.
        truth: unit vectors, (B, 3, H, W).
        known: which pixels count, (B, H, W).
    """
    cosine = F.cosine_similarity(outputs[:, :3], truth, dim=1)[known]
    angle = cosine.clamp(-1 + 1e-4, 1 - 1e-4).acos()
    if not len(angle):
        return outputs.sum() * 0
    kappa = F.elu(outputs[:, 3][known]) + LEAST_KAPPA
    return (torch.log1p((-kappa * torch.pi).exp()) - torch.log(kappa**2 + 1) + kappa * angle).mean()
