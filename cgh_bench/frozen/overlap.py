"""How well maps of classes agree: one confusion matrix, and what mmsegmentation reports of it."""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def confusion(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> Counts:
    """How many pixels of each true class were predicted as each class, (C, C).

    Pixels whose value in either map (of any one shape) is not from 0 to C - 1 do not count: 255 is no class.
    """
    known = (truth < classes) & (predicted < classes)
    pairs = truth[known].astype(np.int64) * classes + predicted[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def iou(counts: Counts) -> NDArray[np.float64]:
    """The IoU of each class (C,) in a confusion matrix, NaN for one that is neither present nor predicted."""
    hits = counts.diagonal()
    return _shares(hits, counts.sum(axis=0) + counts.sum(axis=1) - hits)


def segmentation_metrics(counts: Counts) -> dict[str, float]:
    """Mean IoU and mean accuracy over the classes that have any, and the accuracy of all pixels, in percent.

    As mmsegmentation's `IoUMetric` has them: https://github.com/open-mmlab/mmsegmentation, mmseg/evaluation.
    """
    hits = counts.diagonal()
    return {
        "mIoU": 100 * float(np.nanmean(iou(counts))),
        "mAcc": 100 * float(np.nanmean(_shares(hits, counts.sum(axis=1)))),
        "aAcc": 100 * float(hits.sum() / counts.sum()),
    }


def _shares(some: Counts, whole: Counts) -> NDArray[np.float64]:
    return np.divide(some, whole, out=np.full(len(some), np.nan), where=whole > 0)
