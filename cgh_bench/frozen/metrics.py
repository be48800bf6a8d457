"""Classification metrics as fractions in [0, 1], and the votes of neighbours for classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOT_COUNTED = -1


def true_ranks(scores: Tensor, truth: Tensor) -> Tensor:
    """How many classes each of G classifiers ranks before the true one: (B, G).

    Equal scores rank in the order of the classes, so that the answer depends on no sorting algorithm. A score that is
    not finite (a classifier that has diverged) ranks last: NaN must not count as right.

    Args:
        scores: (B, G, C).
        truth: (B,)
    """
    of_truth = scores.gather(2, truth[:, None, None].expand(-1, scores.shape[1], 1))
    earlier = torch.arange(scores.shape[2], device=scores.device) < truth[:, None, None]
    ranks = ((scores > of_truth) | ((scores == of_truth) & earlier)).sum(dim=2)
    return torch.where(torch.isfinite(of_truth[:, :, 0]), ranks, scores.shape[2])


def top5(ranks: Tensor, classes: int) -> dict[str, float]:
    """`{"top5": percent}` of the ranks (B,) of the true classes; empty for five classes or fewer: all are in."""
    return {"top5": 100 * float((ranks < 5).double().mean())} if classes > 5 else {}


def accuracy(predicted: Tensor, truth: Tensor) -> float:
    """The fraction of `predicted` (B,) that is right."""
    return float((predicted == truth).double().mean())


def class_balanced_accuracy(predicted: Tensor, truth: Tensor) -> float:
    """The mean over the classes that occur in `truth` (B,) of the fraction of theirs `predicted` (B,) right."""
    classes = torch.unique(truth)
    return float(torch.stack([(predicted[truth == c] == c).double().mean() for c in classes]).mean())


def average_precisions(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """The average precision of each class, (C,): the mean precision at the rank of each image that shows it.

    `scores` and `truth` are (B, C); truth is 1 present, 0 absent or `NOT_COUNTED`. NaN for a class that none shows.
    Source: https://en.wikipedia.org/wiki/Evaluation_measures_(information_retrieval)#Average_precision.
    """
    from sklearn.metrics import average_precision_score

    return _each_class(scores, truth, lambda right, score: float(average_precision_score(right, score)))


def average_precisions_11_points(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same as PASCAL VOC 2007 has it: the mean over recalls 0, 0.1, … 1 of the best precision at that or more."""
    from sklearn.metrics import precision_recall_curve

    def eleven(right: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
        precision, recall, _ = precision_recall_curve(right, score)
        precision, recall = precision[:-1], recall[:-1]  # the last point, recall 0 at precision 1, is sklearn's own
        # Recall is n / m, which in binary is a little more or less than 0.1, 0.2, …
        best = [precision[recall >= tenth / 10 - 1e-9].max(initial=0.0) for tenth in range(11)]
        return float(np.mean(best))

    return _each_class(scores, truth, eleven)


def _each_class(
    scores: NDArray[np.float64],
    truth: NDArray[np.int64],
    measure: Callable[[NDArray[np.bool_], NDArray[np.float64]], float],
) -> NDArray[np.float64]:
    values = np.full(truth.shape[1], np.nan)
    for column in range(truth.shape[1]):
        counted = truth[:, column] != NOT_COUNTED
        right = truth[counted, column] == 1
        if right.any():
            values[column] = measure(right, scores[counted, column])
    return values


QUERIES_PER_VOTE = 4_096


@dataclass(frozen=True)
class Ranked:
    """How the votes classify Q images."""

    truth: Tensor
    """(Q,) the true class."""
    predicted: Tensor
    """(Q,) the class with most votes."""
    true_rank: Tensor
    """(Q,) how many classes come before the true one; all of them if no neighbour voted for it."""
    classes: int

    @property
    def right(self) -> NDArray[np.bool_]:
        """(Q,) whether the true class has most votes."""
        return (self.true_rank < 1).numpy()

    @property
    def answers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The predicted class and the rank of the true one, (Q,) each."""
        return self.predicted.numpy(), self.true_rank.numpy()

    @property
    def top1(self) -> float:
        """Per cent of images whose true class has most votes."""
        return 100 * float((self.true_rank < 1).double().mean())

    def metrics(self) -> dict[str, float]:
        """Top-1, top-5 (of more than five classes) and the mean over classes, in per cent.

        A class without a vote is not among the first five; facebookresearch/dino `eval_knn.py` counts such classes, in
        no stated order, where fewer than min(5, k) have votes.
        """
        balanced = 100 * class_balanced_accuracy(self.predicted, self.truth)
        return {"top1": self.top1, **top5(self.true_rank, self.classes), "class_balanced": balanced}


def rank(
    similarity: NDArray[np.float32],
    labels: NDArray[np.int64],
    truth: NDArray[np.int64],
    classes: int,
    grid: tuple[Sequence[int], Sequence[float]],
) -> Mapping[tuple[int, float], Ranked]:
    """Classify by every K and temperature.

    Args:
        similarity: (Q, K) to the neighbours, nearest first; K the largest k of the grid, or the whole bank.
        labels: (Q, K) their classes.
        truth: (Q,)
        classes: how many there are.
        grid: how many neighbours vote (k), ascending, and the temperatures of their weights.

    Returns:
        An answer for each (k, temperature).
    """
    ks, temperatures = grid
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
                voted = torch.where(scores > 0, scores, -torch.inf)
                parts[k, temperature].append((scores.argmax(dim=1), true_ranks(voted[:, None], right)[:, 0]))
    answers = {}
    for point, found in parts.items():
        predicted, ranks = (torch.cat(column) for column in zip(*found, strict=True))
        answers[point] = Ranked(torch.from_numpy(truth), predicted, ranks, classes)
    return answers


def rank_by(
    similarity: NDArray[np.float32],
    labels: NDArray[np.int64],
    truth: NDArray[np.int64],
    classes: int,
    k: int,
    temperature: float,
) -> Ranked:
    """Classify by one K and one temperature; see `rank`."""
    return rank(similarity, labels, truth, classes, ([k], [temperature]))[k, temperature]


def vote_weights(similarity: NDArray[np.float32], temperature: float) -> Tensor:
    """exp(s / T), (Q, K) float64, each row divided by its largest so that no temperature overflows, and never zero.

    But a neighbour at similarity -inf, one that an approximate index did not find, has no vote.
    """
    s = torch.from_numpy(similarity).double()
    nearest = s[:, :1].clamp_min(-1)  # so that there is one where nothing was found
    weights = ((s - nearest) / temperature).exp().clamp_min(torch.finfo(s.dtype).tiny)
    return torch.where(s > -torch.inf, weights, 0)


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
