"""Softmax regression on features, for a whole grid of weight decays at once, by a batched L-BFGS."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from cgh_bench.core import dist
from cgh_bench.core.device import pick_device
from cgh_bench.core.files import replacing
from cgh_bench.core.progress import progress, seconds_of
from cgh_bench.data.image_set import ImageSet
from cgh_bench.frozen.lbfgs import minimise
from cgh_bench.frozen.selection import Grid, Rows

ROWS_PER_PASS = 16_384
ROWS_TIMED = 256
COPIES_OF_HEADS = 80
"""L-BFGS has twenty in its history, takes out of it what has not converged, and works on more; 73 were measured."""


@dataclass(frozen=True)
class Problem:
    """Some rows of a feature matrix with their labels; features are standardised as they are read."""

    features: NDArray[np.float32]
    """(N, D), maybe memory-mapped: read in slices."""
    labels: NDArray[np.int64]
    """(N,)"""
    classes: int
    rows: Rows
    """Which of the N take part, ascending."""
    mean: Tensor
    deviation: Tensor
    """(D,) each, of the rows that the classifier is fitted to."""
    intercept: bool = True

    def slices(self) -> "list[Rows]":
        """The row numbers, `ROWS_PER_PASS` at a time."""
        return [self.rows[start : start + ROWS_PER_PASS] for start in range(0, len(self.rows), ROWS_PER_PASS)]

    def read(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Inputs (B, D + 1), standardised and with a one for the bias behind (zero for none), and labels (B,)."""
        x = torch.tensor(self.features[rows]).to(self.mean.device)
        inputs = with_ones((x - self.mean) / self.deviation)
        if not self.intercept:
            inputs[:, -1] = 0
        return inputs, torch.tensor(self.labels[rows]).to(x.device)


def problem(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, rows: Rows) -> Problem:
    """The problem of fitting these rows; a feature that never varies is left at zero."""
    mean, square = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for start in range(0, len(rows), ROWS_PER_PASS):
        part = features[rows[start : start + ROWS_PER_PASS]].astype(np.float64)
        mean += part.sum(axis=0) / len(rows)
        square += (part**2).sum(axis=0) / len(rows)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    deviation[deviation < 1e-6 * np.abs(mean) + 1e-12] = np.inf
    center, scale = (torch.from_numpy(a).float().to(pick_device()) for a in (mean, deviation))
    return Problem(features, labels, classes, rows, center, scale)


def fit(
    task: Problem, weight_decays: tuple[float, ...], iterations: int, tolerance: float, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The minimisers of `mean cross-entropy + decay / 2 * |weights|²`, the biases not decayed, for every decay.

    Args:
        task: what is fitted.
        weight_decays: G of them, above zero, so that every minimum is unique.
        iterations: of L-BFGS, at most.
        tolerance: see `minimise`.
        start: classifiers (G, D + 1, C) to begin from; default zeros.

    Returns:
        classifiers (G, D + 1, C), the last row of each is the bias; and which of them have converged (G,).
    """
    width, classes = task.features.shape[1] + 1, task.classes
    decays = torch.tensor(weight_decays, device=task.mean.device)
    variances, axes = torch.linalg.eigh(_moments(task))
    variances, axes = variances.clamp_min(0).float(), axes.float()
    passes, at_zero = count(1), math.log(classes)
    with progress(f"fit of {len(decays)} classifiers, at most", iterations + 1) as tick:

        def objective(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
            tick(min(next(passes), iterations), f"at work on {len(which)}")
            return _cross_entropy(task, points.view(-1, width, classes), decays[which])

        def newton(values: Tensor, which: Tensor, vectors: Tensor) -> Tensor:
            """The inverse of the Hessian as if each p (1 - p) were equal: it falls about as the cross-entropy does."""
            spread = values.float() / (classes * at_zero)
            curvature = spread[:, None] * variances + decays[which, None]
            turned: Tensor = axes.T @ vectors.view(-1, width, classes)
            product: Tensor = axes @ (turned / curvature[:, :, None])
            return product.view(vectors.shape)

        zeros = torch.zeros(len(decays), width * classes, device=decays.device)
        begin, first = (zeros, None) if start is None else (start.flatten(1), zeros.new_full((len(decays),), at_zero))
        points, converged = minimise(objective, begin, iterations, tolerance, newton, first=first)
    return points.view(-1, width, classes), converged


@dataclass(frozen=True)
class Head:
    """A fitted linear classifier."""

    weights: Tensor
    """(D + 1, C), the bias last."""
    mean: Tensor
    deviation: Tensor
    """(D,) each: features are standardised by them."""

    def scores(self, features: NDArray[np.float32]) -> Tensor:
        """The logits (N, C) of features (N, D), on the CPU."""
        rows = np.arange(len(features))
        classes = self.weights.shape[1]
        task = Problem(features, np.zeros(len(rows), np.int64), classes, rows, self.mean, self.deviation)
        return judge(task, self.weights[None], 0)[1]


def stored_head(path: Path, fit: Callable[[], Head]) -> Head:
    """The classifier that is stored at `path`, or, where there is none, what `fit` returns, which is stored there."""
    if dist.agreed(path.exists()):
        with np.load(path) as arrays:
            return Head(*(torch.from_numpy(arrays[f.name]).to(pick_device()) for f in fields(Head)))
    head = fit()
    if dist.rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, **{f.name: getattr(head, f.name).cpu().numpy() for f in fields(Head)})
    return head


def judge(task: Problem, heads: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """What each of the classifiers (G, D + 1, C) predicts for the problem's rows, (N, G), and the logits (N, C) of one.

    On the CPU. The logits of all classifiers and rows are never in memory together.
    """
    parts = (_logits(task.read(rows)[0], heads) for rows in task.slices())
    predicted, scores = zip(*((part.argmax(dim=2).cpu(), part[:, index].cpu()) for part in parts), strict=True)
    return torch.cat(predicted), torch.cat(scores)


def planned_bytes(heads: int, width: int, classes: int, n: int) -> int:
    """The most memory that `search.choose` needs to fit `heads` heads to `n` rows, beside the features on disk."""
    grid = 4 * heads * (width + 1) * classes
    rows = min(n, ROWS_PER_PASS)
    slice_ = 4 * rows * (6 * width + 4 * heads * classes)  # inputs being standardised, logits and what is made of them
    moments = 3 * 8 * (width + 1) ** 2  # a sum of products, its eigenvectors and what LAPACK needs
    return COPIES_OF_HEADS * grid + slice_ + moments


def plan(width: int, images: ImageSet, grid: Grid) -> str:
    """What `search.choose` takes on features of this `width`, in a line, by the time of one pass over made-up rows."""
    classes = len(images.classes)
    heads, n = len(grid.weight_decays), len(images)
    megabytes = planned_bytes(heads, width, classes, n) / 1e6
    rows = min(n, ROWS_TIMED)
    toy = problem(np.ones((rows, width), np.float32), np.zeros(rows, np.int64), classes, np.arange(rows))
    start = torch.zeros(heads, width + 1, classes, device=toy.mean.device)
    each = seconds_of(lambda: float(_cross_entropy(toy, start, start.new_ones(heads))[0].sum())) * n / rows
    return (
        f"fit: {heads} classifiers of {width} × {classes} on {n:,} rows, {each:.1f} s for each of about 100 passes "
        f"(two fits of at most {grid.iterations} iterations), at most {megabytes:,.0f} MB of memory"
    )


def _logits(x: Tensor, heads: Tensor) -> Tensor:
    """(B, D + 1) and (G, D + 1, C) to (B, G, C), as one matrix product."""
    count, width, classes = heads.shape
    return (x @ heads.transpose(0, 1).reshape(width, count * classes)).view(len(x), count, classes)


def _cross_entropy(task: Problem, heads: Tensor, decays: Tensor) -> tuple[Tensor, Tensor]:
    """Values (A,) and gradients (A, (D + 1) C) of the regularised mean cross-entropy of classifiers (A, D + 1, C)."""
    penalised = heads.clone()
    penalised[:, -1] = 0
    value = (penalised**2).sum(dim=(1, 2)).double() * decays / 2
    gradient = penalised * decays[:, None, None]
    for rows in task.slices():
        x, y = task.read(rows)
        losses, residual = cross_entropy(_logits(x, heads), y)
        value += losses / len(task.rows)
        product = x.T @ residual.flatten(1) / len(task.rows)
        gradient += product.view(-1, *heads.shape[::2]).transpose(0, 1)
    return value, gradient.flatten(1)


def _moments(task: Problem) -> Tensor:
    """The mean of the products of every two inputs, (D + 1, D + 1) float64."""
    width = task.features.shape[1] + 1
    moments = torch.zeros(width, width, dtype=torch.float64, device=task.mean.device)
    for rows in task.slices():
        x, _ = task.read(rows)
        moments += (x.T @ x).double() / len(task.rows)
    return moments


def with_ones(x: Tensor) -> Tensor:
    """Inputs (B, D) with a one for the bias behind, (B, D + 1)."""
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropies of (B, G, C) logits summed over the batch, (G,) float64, and their gradient (B, G, C)."""
    log_p = log_softmax(logits, dim=2)
    index = labels[:, None, None].expand(-1, logits.shape[1], 1)
    losses = -log_p.gather(2, index)[:, :, 0].double().sum(dim=0)
    residual = log_p.exp_()
    residual.scatter_add_(2, index, residual.new_full(index.shape, -1.0))
    return losses, residual
