"""Votes of neighbours for classes, of every K and temperature from one search.

A neighbour at cosine similarity s votes exp(s / T) for its class (https://arxiv.org/abs/1805.01978, eq. 7 and 8).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgh_bench.frozen.metrics import class_balanced_accuracy, true_rank

QUERIES_PER_VOTE = 4_096


@dataclass(frozen=True)
class Ranked:
    """What the votes say of Q images."""

    truth: Tensor
    """(Q,) the true class."""
    predicted: Tensor
    """(Q,) the class with most votes."""
    true_rank: Tensor
    """(Q,) how many classes come before the true one."""

    def top(self, n: int) -> float:
        """Per cent of images whose true class is among the first `n`."""
        return 100 * float((self.true_rank < n).double().mean())

    def metrics(self) -> dict[str, float]:
        """The usual three, in per cent."""
        balanced = 100 * class_balanced_accuracy(self.predicted, self.truth)
        return {"top1": self.top(1), "top5": self.top(5), "class_balanced": balanced}


def rank(
    similarity: NDArray[np.float32],
    labels: NDArray[np.int64],
    truth: NDArray[np.int64],
    ks: Sequence[int],
    temperatures: Sequence[float],
) -> Mapping[tuple[int, float], Ranked]:
    """Classify by every K and temperature.

    Args:
        similarity: (Q, K) to the neighbours, nearest first; K the largest of `ks`, or the whole bank.
        labels: (Q, K) their classes.
        truth: (Q,)
        ks: how many neighbours vote, ascending.
        temperatures: of the weights.

    Returns:
        An answer for each (k, temperature).
    """
    classes = 1 + int(max(labels.max(), truth.max()))
    parts: dict[tuple[int, float], list[tuple[Tensor, Tensor]]] = {(k, t): [] for t in temperatures for k in ks}
    for start in range(0, len(truth), QUERIES_PER_VOTE):
        part = slice(start, start + QUERIES_PER_VOTE)
        theirs, right = torch.from_numpy(labels[part]), torch.from_numpy(truth[part])
        for temperature in temperatures:
            weights = vote_weights(similarity[part], temperature)
            scores, counted = weights.new_zeros(len(right), classes), 0
            for k in ks:
                scores.scatter_add_(1, theirs[:, counted:k], weights[:, counted:k])
                counted = k
                parts[k, temperature].append((scores.argmax(dim=1), true_rank(scores, right)))
    return {point: _joined(truth, answers) for point, answers in parts.items()}


def _joined(truth: NDArray[np.int64], answers: list[tuple[Tensor, Tensor]]) -> Ranked:
    predicted, ranks = (torch.cat(column) for column in zip(*answers, strict=True))
    return Ranked(torch.from_numpy(truth), predicted, ranks)


def vote_weights(similarity: NDArray[np.float32], temperature: float) -> Tensor:
    """exp(s / T), (Q, K) float64, each row divided by its largest so that no temperature overflows.

    A neighbour at similarity -inf, one that an approximate index did not find, has no vote.
    """
    s = torch.from_numpy(similarity).double()
    nearest = s[:, :1].clamp_min(-1)  # so that there is one where nothing was found
    return ((s - nearest) / temperature).exp()


def without_self(
    similarity: NDArray[np.float32], row: NDArray[np.int64], own: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The K nearest others of images that are in the bank themselves.

    Args:
        similarity: (Q, K + 1), nearest first.
        row: (Q, K + 1) the neighbours' numbers in the bank.
        own: (Q,) the images' own numbers. One that equals more than K others may be missing from its neighbours.
    """
    keep = row != own[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(row), row.shape[1] - 1)
    return similarity[keep].reshape(shape), row[keep].reshape(shape)
