"""How alike two backbones see the same images: by all similarities (CKA), and by the nearest images (mutual kNN)."""

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError

Features = NDArray[np.float32]
Floats = NDArray[np.float64]

FEWEST = 4
"""Images from which the unbiased estimator is defined."""


def cka(first: Features, second: Features) -> float:
    """The linear CKA of features (N, D) and (N, E) of the same images in the same order, at most 1.

    For unrelated features it is about 0, whatever N, D and E are: HSIC is estimated without bias, where the plain
    estimator grows with the widths. No N × N matrix is made.

    Sources: Kornblith et al., ICML 2019 (https://arxiv.org/abs/1905.00414); Song et al., JMLR 13 (2012), eq. 5;
    Nguyen et al., ICLR 2021 (https://arxiv.org/abs/2010.15327, eq. 3).

    Raises:
        UserError: fewer than four images, or features that do not vary.
    """
    if len(first) < FEWEST:
        raise UserError(f"{len(first)} images are too few for CKA; at least {FEWEST} are needed")
    x, y = (part.astype(np.float64) - part.mean(axis=0, dtype=np.float64) for part in (first, second))
    own, other = _hsic(x, x), _hsic(y, y)
    if min(own, other) <= 0:
        raise UserError("the features of one backbone are constant over images, so CKA is undefined")
    return float(_hsic(x, y) / np.sqrt(own * other))


def _hsic(x: Floats, y: Floats) -> float:
    """The unbiased HSIC of x (N, D) and y (N, E) with linear kernels, times N (N - 3)."""
    n = len(x)
    k, m = (x**2).sum(axis=1), (y**2).sum(axis=1)
    rows_k, rows_m = x @ x.sum(axis=0) - k, y @ y.sum(axis=0) - m
    trace = ((x.T @ y) ** 2).sum() - k @ m
    return float(trace + rows_k.sum() * rows_m.sum() / ((n - 1) * (n - 2)) - 2 * rows_k @ rows_m / (n - 2))


def mutual_neighbours(first: Features, second: Features, k: int = 10) -> float:
    """The mean share of each image's `k` nearest others (by cosine) that both backbones agree on, from 0 to 1.

    By chance it is k / (N - 1).

    Source: Huh et al., ICML 2024 (https://arxiv.org/abs/2405.07987, appendix A).

    Raises:
        UserError: not more than k images.
    """
    from cgh_bench.frozen.neighbours import neighbours

    n = len(first)
    if n <= k:
        raise UserError(f"{n} images are too few for {k} neighbours each")
    near = []
    for features in (first, second):
        rows = neighbours(features, features, k + 1)[1]
        own = rows == np.arange(n)[:, None]
        own[~own.any(axis=1), -1] = True  # equal images came first: the last is left out instead
        near.append(rows[~own].reshape(n, k))
    shared = (near[0][:, :, None] == near[1][:, None]).sum(axis=(1, 2))
    return float(shared.mean() / k)
