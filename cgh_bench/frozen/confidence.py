"""What the confidence of a classifier is worth: calibration, selective accuracy, telling unknown images apart."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, one_hot

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]

PER_BIN = 100
"""Images of a bin of the RMS calibration error (hendrycks/natural-adv-examples `calibration_tools.py`)."""


def temperature(scores: Tensor, truth: Tensor) -> float:
    """The T for which `scores / T` (N, C) have the least cross-entropy with `truth` (N,); between 0.01 and 100.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (https://arxiv.org/abs/1706.04599, 4.2).
    """
    from scipy.optimize import minimize_scalar

    scores = scores.double()

    def loss(log_t: float) -> float:
        return float(cross_entropy(scores / np.exp(log_t), truth))

    edge = np.log(100)
    return float(np.exp(minimize_scalar(loss, bounds=(-edge, edge), method="bounded").x))


def calibration(scores: Tensor, truth: Tensor, bins: int) -> dict[str, float]:
    """Measures of the probabilities that logits (N, C) give, in per cent but for `nll` (nats) and `brier` (0 to 2).

    `ece` has bins of equal width, `ece_equal_count` as many of equal count, `rms` some of about `PER_BIN` images; every
    image is in a bin, and every bin counts by its images.

    Sources: Guo et al. (ece, nll); Nixon et al., https://arxiv.org/abs/1904.01685 (equal count, of the highest
    probability); Hendrycks et al., https://arxiv.org/abs/1812.04606 (RMS); Brier, 1950.
    """
    logits = log_softmax(scores.double(), dim=1)
    highest, predicted = logits.exp().max(dim=1)
    confidence, right = highest.numpy(), (predicted == truth).numpy()
    order = np.argsort(confidence, kind="stable")
    width = np.minimum((confidence * bins).astype(int), bins - 1)
    by_width = [np.flatnonzero(width == number) for number in range(bins)]
    missed = logits.exp() - one_hot(truth, scores.shape[1])
    return {
        "ece": 100 * float(_gaps(confidence, right, by_width, 1)),
        "ece_equal_count": 100 * float(_gaps(confidence, right, np.array_split(order, bins), 1)),
        "rms": 100 * float(_gaps(confidence, right, np.array_split(order, max(1, len(order) // PER_BIN)), 2)),
        "brier": float((missed**2).sum(dim=1).mean()),
        "nll": float(-logits.gather(1, truth[:, None]).mean()),
    }


def _gaps(confidence: Floats, right: Marks, bins: list[NDArray[np.int64]], power: int) -> float:
    """The mean over images of |confidence - accuracy| of their bin, to a power, and its root."""
    gaps = [(len(rows), abs(confidence[rows].mean() - right[rows].mean())) for rows in bins if len(rows)]
    return float((sum(n * gap**power for n, gap in gaps) / len(right)) ** (1 / power))


def reliability(scores: Tensor, truth: Tensor, bins: int) -> list[tuple[float, float, int]]:
    """For each bin of equal width that has images: mean confidence, accuracy, images."""
    probabilities = torch.softmax(scores.double(), dim=1)
    highest, predicted = probabilities.max(dim=1)
    confidence, right = highest.numpy(), (predicted == truth).numpy()
    width = np.minimum((confidence * bins).astype(int), bins - 1)
    each = ((width == number) for number in range(bins))
    return [(float(confidence[rows].mean()), float(right[rows].mean()), int(rows.sum())) for rows in each if rows.any()]


def accuracy_at(coverage: float, scores: Tensor, truth: Tensor) -> float:
    """Per cent right of the share `coverage` of images that are most confident (of the highest probability)."""
    highest, predicted = torch.softmax(scores.double(), dim=1).max(dim=1)
    kept = torch.argsort(highest, descending=True, stable=True)[: max(1, round(coverage * len(truth)))]
    return 100 * float((predicted == truth)[kept].double().mean())


def told_apart(known: Floats, unknown: Floats) -> tuple[float, float]:
    """AUROC, and the share of unknown images that pass where 95 % of the known ones do; in per cent.

    Args:
        known: (N,) scores of images like those learned from; higher means more known.
        unknown: (M,) those of others.
    """
    from sklearn.metrics import roc_auc_score

    marks = np.repeat([1, 0], [len(known), len(unknown)])
    auroc = float(roc_auc_score(marks, np.concatenate([known, unknown])))
    threshold = np.sort(known)[len(known) - int(np.ceil(0.95 * len(known)))]
    return 100 * auroc, 100 * float((unknown >= threshold).mean())


def mahalanobis(
    train: NDArray[np.float32], labels: NDArray[np.int64], queries: NDArray[np.float32], ridge: float = 1e-6
) -> Floats:
    """Minus the squared Mahalanobis distance of queries (Q, D) to the nearest class mean, (Q,).

    The covariance is shared by the classes; `ridge` times its mean variance is added to its diagonal.

    Source: Lee et al., NeurIPS 2018 (https://arxiv.org/abs/1807.03888, eq. 1 and 2).
    """
    from scipy.linalg import cho_factor, cho_solve

    classes = np.unique(labels)
    means = np.stack([train[labels == label].mean(axis=0, dtype=np.float64) for label in classes])
    gram = np.zeros((train.shape[1],) * 2)
    for label, mean in zip(classes, means, strict=True):
        off = train[labels == label] - mean
        gram += off.T @ off
    gram /= len(train)
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    factor = cho_factor(gram)
    nearest = np.full(len(queries), np.inf)
    for mean in means:
        off = queries - mean
        nearest = np.minimum(nearest, (off * cho_solve(factor, off.T).T).sum(axis=1))
    return -nearest
