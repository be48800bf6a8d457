"""How good features look without labels: their spectrum, and how views of one image compare with other images."""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
Floats = NDArray[np.float64]

ROWS = 4_096
"""Rows that are in memory in float64 at a time."""


def singular_values(features: Features) -> Floats:
    """The singular values of features (N, D) as they are, not centred: (min(N, D),), descending.

    They are roots of the eigenvalues of the smaller Gram matrix: exact to about 1e-8 of the largest, in bounded memory.
    """
    n, width = features.shape
    return np.sqrt(_eigenvalues(_gram(features, np.zeros(width)) if n > width else _outer(features)))


def variances(features: Features) -> Floats:
    """The eigenvalues of the covariance of the features (N, D): (min(N, D),), descending."""
    n, width = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    gram = _gram(features, mean) if n > width else _outer(features - mean)
    return _eigenvalues(gram) / (n - 1)


def rankme(values: Floats, eps: float) -> float:
    """The exponential of the entropy of singular values (K,): between 1 and K, for all equal.

    Source: Garrido et al., RankMe, ICML 2023 (https://arxiv.org/abs/2210.02885, eq. 1 and 2).
    """
    return _effective_number(values, eps)


def rankme_of_gaussian(n: int, width: int, eps: float) -> float:
    """What `rankme` gives for `n` rows of independent standard normal numbers: about the most for that N and D."""
    rows = np.random.default_rng(0)
    if n <= width:
        return rankme(singular_values(rows.standard_normal((n, width), np.float32)), eps)
    gram = np.zeros((width, width))
    for start in range(0, n, ROWS):
        part = rows.standard_normal((min(ROWS, n - start), width), np.float32).astype(np.float64)
        gram += part.T @ part
    return rankme(np.sqrt(_eigenvalues(gram)), eps)


def power_law(eigenvalues: Floats, ranks: tuple[int, int]) -> float | None:
    """The exponent α of the decay `rank ** -α` of the eigenvalues (K,) from one rank to another, counted from 1.

    A line through the logarithms, each weighted by 1 / rank. None where there are fewer eigenvalues above zero.

    Source: Agrawal et al., α-ReQ, NeurIPS 2022; kumarkrishna/fastssl `utils/powerlaw.py`, after Stringer et al., Nature
    571 (2019).
    """
    first, last = ranks
    used = eigenvalues[first - 1 : last]
    if len(used) < last - first + 1 or used[-1] <= eigenvalues[0] * 1e-12:
        return None
    rank = np.arange(first, last + 1)
    slope, _ = np.polyfit(np.log(rank), np.log(used), 1, w=np.sqrt(1 / rank))
    return -float(slope)


def lidar(views: Features, delta: float, eps: float) -> float | None:
    """The effective number of directions in which images differ more than their views.

    None where the N (Q - 1) differences of views are fewer than D: in some directions `delta` would decide alone.

    Args:
        views: (N, Q, D), Q views of each of N images.
        delta: what is added to the diagonal of the covariance within images.
        eps: added to each share of the eigenvalues' sum.

    Source: Thilak et al., LiDAR, ICLR 2024 (https://arxiv.org/abs/2312.04000, eq. 1 to 3).
    """
    from scipy.linalg import eigh

    n, count, width = views.shape
    if n * (count - 1) < width:
        return None
    means = views.mean(axis=1, dtype=np.float64)
    within = np.zeros((width, width))
    for start in range(0, n, max(1, ROWS // count)):
        part = slice(start, start + max(1, ROWS // count))
        off = (views[part] - means[part, None]).reshape(-1, width)
        within += off.T @ off
    centred = means - means.mean(axis=0)
    between = centred.T @ centred / n
    eigenvalues = eigh(between, within / (n * count) + delta * np.eye(width), eigvals_only=True)
    return _effective_number(np.maximum(eigenvalues, 0), eps)


def alignment(views: Features) -> float:
    """The mean squared distance of two views of an image, of the unit vectors of (N, Q, D): 0 where all are equal.

    Source: Wang and Isola, ICML 2020 (https://arxiv.org/abs/2005.10242, eq. 3 with α = 2).
    """
    _, count, _ = views.shape
    total = unit(views).sum(axis=1)
    cosines = ((total**2).sum(axis=1) - count) / (count * (count - 1))
    return float(2 * (1 - cosines.mean()))


def uniformity(features: Features) -> float:
    """The logarithm of the mean of exp(-2 d²) over all pairs of unit vectors of (N, D): 0 where all are equal, to -4.

    Source: Wang and Isola, ICML 2020 (https://arxiv.org/abs/2005.10242, eq. 4 with t = 2).
    """
    n = len(features)
    rows = unit(features)
    total = -float(n)  # each row's pair with itself
    for start in range(0, n, ROWS):
        for other in range(0, n, ROWS):
            total += float(np.exp(4 * (rows[start : start + ROWS] @ rows[other : other + ROWS].T - 1)).sum())
    return float(np.log(total / (n * (n - 1))))


def unit(rows: Features) -> Floats:
    """Each divided by its length, in float64; a row of zeros stays."""
    rows = rows.astype(np.float64)
    lengths: Floats = np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return rows / lengths


def _effective_number(values: Floats, eps: float) -> float:
    shares = values / values.sum() + eps
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _eigenvalues(symmetric: Floats) -> Floats:
    descending = np.linalg.eigvalsh(symmetric)[::-1].astype(np.float64)
    return np.maximum(descending, 0)


def _gram(features: Features, mean: Floats) -> Floats:
    """Products of the columns, (D, D), after `mean` (D,) is taken off."""
    gram = np.zeros((features.shape[1],) * 2)
    for start in range(0, len(features), ROWS):
        part = features[start : start + ROWS] - mean
        gram += part.T @ part
    return gram


def _outer(features: NDArray[np.floating]) -> Floats:
    """Products of the rows, (N, N)."""
    rows = features.astype(np.float64)
    return rows @ rows.T
