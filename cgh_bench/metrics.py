"""Classification metrics, as fractions in [0, 1]."""

import torch
from torch import Tensor


def top_accuracy(scores: Tensor, truth: Tensor, k: int) -> float:
    """The fraction of rows whose true class is among the `k` best scored: `scores` (B, C), `truth` (B,).

    Equal scores rank in the order of the classes, so the answer depends on no sorting algorithm. With fewer than `k`
    classes every row counts as right.
    """
    true_score = scores.gather(1, truth[:, None])
    earlier = torch.arange(scores.shape[1]) < truth[:, None]
    rank = ((scores > true_score) | ((scores == true_score) & earlier)).sum(dim=1)
    return float((rank < k).double().mean())


def class_balanced_accuracy(predicted: Tensor, truth: Tensor) -> float:
    """The mean over the classes that occur in `truth` (B,) of the fraction of theirs `predicted` (B,) right."""
    classes = torch.unique(truth)
    return float(torch.stack([(predicted[truth == c] == c).double().mean() for c in classes]).mean())
