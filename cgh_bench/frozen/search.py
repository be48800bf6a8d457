"""The choice of a weight decay on held-out images, and the classifier of all of train that it leads to."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgh_bench.frozen.features import FeatureBank
from cgh_bench.frozen.probe import Head, Problem, fit, judge, problem
from cgh_bench.frozen.selection import Grid, Rows

COARSER = 100
"""How many times the tolerance is that of the classifiers on a path, but for the chosen one."""


@dataclass(frozen=True)
class Choice:
    """What the search came to; accuracies are one for each weight decay, in percent."""

    index: int
    """The index of the weight decay that is best on the held-out images, the largest of equals."""
    held_out: list[float]
    val: list[float]
    converged: list[bool]
    """Whether each classifier on all of train is at its optimum, to the grid's tolerance (on a path: see `again`)."""
    scores: Tensor
    """The logits (N, C) of val at the chosen weight decay."""
    best: NDArray[np.int64]
    """The classes (N,) predicted for val at the weight decay that is best there."""
    held_out_scores: Tensor
    """The logits (H, C) of the held-out rows by the classifier of that weight decay that was not fitted to them."""
    head: Head
    """The classifier of all of train at the chosen weight decay."""

    @property
    def share_converged(self) -> float:
        """In percent of the grid."""
        return 100 * sum(self.converged) / len(self.converged)


Accuracy = Callable[[Tensor, Tensor], float]
"""Classes predicted (N,) and true (N,) to a fraction."""


def choose(
    train: FeatureBank,
    val: FeatureBank,
    split: tuple[Rows, Rows],
    grid: Grid,
    accuracy: Accuracy,
) -> Choice:
    """Choose the weight decay on the held-out part of train, fit again on all of train, and score val.

    Args:
        train: features.
        val: features.
        split: rows of train to fit, and to hold out: none, where there is one decay.
        grid: the weight decays.
        accuracy: what is chosen by.
    """
    fitted, held = split
    some = _problem(train, fitted, grid)
    first, index, on_held = None, 0, []
    held_out_scores = torch.zeros(0, len(train.classes))
    if len(held):
        first = along(some, grid) if grid.path else _fit(some, grid)
        predicted, _ = judge(replace(some, rows=held), first[0], 0)
        on_held = _accuracies(predicted, train.labels[held], accuracy)
        index = max(range(len(on_held)), key=lambda i: (on_held[i], grid.weight_decays[i]))
        held_out_scores = Head(first[0][index], some.mean, some.deviation).scores(train.features[held])

    every = _problem(train, np.arange(len(train.labels)), grid)
    heads, converged = again(every, grid, some, first, index) if first and grid.path else _fit(every, grid)
    on_val = replace(every, features=val.features, labels=val.labels, rows=np.arange(len(val.labels)))
    predicted, scores = judge(on_val, heads, index)
    accuracies = _accuracies(predicted, val.labels, accuracy)
    best = predicted[:, int(np.argmax(accuracies))].numpy()
    head = Head(heads[index], every.mean, every.deviation)
    return Choice(index, on_held, accuracies, converged.tolist(), scores, best, held_out_scores, head)


def along(task: Problem, grid: Grid) -> tuple[Tensor, Tensor]:
    """The classifiers of all weight decays: the strongest first, each from the optimum of the one before.

    The strong ones converge in a few steps, and what they found is near the optimum of the next: in all, about half the
    evaluations that starts from zero take. They are at their optimum to `COARSER` times the grid's tolerance.

    Source: Friedman et al., Regularization Paths for Generalized Linear Models via Coordinate Descent, Journal of
    Statistical Software 33 (2010), section 2.5.

    Returns:
        classifiers (G, D + 1, C); and which of them have converged (G,).
    """
    found: dict[int, tuple[Tensor, Tensor]] = {}
    start = None
    for index in sorted(range(len(grid.weight_decays)), key=lambda i: -grid.weight_decays[i]):
        decay = (grid.weight_decays[index],)
        found[index] = fit(task, decay, grid.iterations, COARSER * grid.tolerance, start)
        start = found[index][0]
    heads, converged = zip(*(found[index] for index in range(len(found))), strict=True)
    return torch.cat(heads), torch.cat(converged)


def again(
    task: Problem, grid: Grid, before: Problem, path: tuple[Tensor, Tensor], chosen: int
) -> tuple[Tensor, Tensor]:
    """The chosen classifier of the path fitted to `task`, of which the path has seen some rows; the others as they are.

    Returns:
        classifiers (G, D + 1, C); and which of them have converged, the chosen one to the grid's own tolerance (G,).
    """
    heads, converged = standardised_as(task, path[0], before), path[1].clone()
    one, decay = slice(chosen, chosen + 1), (grid.weight_decays[chosen],)
    heads[one], converged[one] = fit(task, decay, grid.iterations, grid.tolerance, heads[one])
    return heads, converged


def standardised_as(task: Problem, heads: Tensor, before: Problem) -> Tensor:
    """Classifiers (G, D + 1, C) of features standardised as in `before`, for the same standardised as in `task`."""
    scale = (task.deviation / before.deviation).nan_to_num(0.0, posinf=0.0)  # features that never vary
    shift = ((task.mean - before.mean) / before.deviation) @ heads[:, :-1]
    return torch.cat([heads[:, :-1] * scale[:, None], (heads[:, -1] + shift)[:, None]], dim=1)


def _problem(train: FeatureBank, rows: Rows, grid: Grid) -> Problem:
    found = problem(train.features, train.labels, len(train.classes), rows)
    if not grid.standardised:
        found = replace(found, mean=torch.zeros_like(found.mean), deviation=torch.ones_like(found.deviation))
    return replace(found, intercept=grid.intercept)


def _fit(task: Problem, grid: Grid) -> tuple[Tensor, Tensor]:
    by = len(task.rows) if grid.summed else 1
    return fit(task, tuple(decay / by for decay in grid.weight_decays), grid.iterations, grid.tolerance)


def _accuracies(predicted: Tensor, labels: Rows, accuracy: Accuracy) -> list[float]:
    """The accuracy of each of the G classifiers that predict (N, G), in percent."""
    truth = torch.tensor(labels)
    return [100 * accuracy(classes, truth) for classes in predicted.T]
