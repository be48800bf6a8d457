"""Classification metrics, as fractions in [0, 1]."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOT_COUNTED = -1


def true_rank(scores: Tensor, truth: Tensor) -> Tensor:
    """How many classes rank before the true one: `scores` (B, C), `truth` (B,), the answer (B,).

    Equal scores rank in the order of the classes, so the answer depends on no sorting algorithm.
    """
    true_score = scores.gather(1, truth[:, None])
    earlier = torch.arange(scores.shape[1]) < truth[:, None]
    return ((scores > true_score) | ((scores == true_score) & earlier)).sum(dim=1)


def top_accuracy(scores: Tensor, truth: Tensor, k: int) -> float:
    """The fraction of rows whose true class is among the `k` best scored: `scores` (B, C), `truth` (B,).

    Equal scores rank as in `true_rank`. With fewer than `k` classes every row counts as right.
    """
    return float((true_rank(scores, truth) < k).double().mean())


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
