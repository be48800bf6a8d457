"""How a segmenter errs: which class it takes for which, and IoU by class, from the maps that a run left."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.report import charts
from cgh_bench.report.charts import Chart

Counts = NDArray[np.int64]


def confusion(masks: Path, predictions: Path, classes: int) -> Counts:
    """How many pixels of each true class were given each class, (C, C); pixels of no class (255) do not count.

    Args:
        masks: a folder of maps of class indices, `NAME.png`.
        predictions: a folder of such maps with the same names.
        classes: C.

    Raises:
        OSError, ValueError: a map is missing, no picture, or of another size.
    """
    counts = np.zeros(classes * classes, np.int64)
    for path in sorted(masks.glob("*.png")):
        truth = np.asarray(Image.open(path)).astype(np.int64).ravel()
        given = np.asarray(Image.open(predictions / path.name)).astype(np.int64).ravel()
        known = (truth < classes) & (given < classes)
        counts += np.bincount(truth[known] * classes + given[known], minlength=classes * classes)
    return counts.reshape(classes, classes)


def iou(counts: Counts) -> NDArray[np.float64]:
    """The IoU of each class (C,), NaN for one that is neither there nor predicted."""
    hits = counts.diagonal()
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    shares: NDArray[np.float64] = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
    return shares


def draw(task: str, masks: Path, predictions: Path, classes: Sequence[str], notes: list[str]) -> list[Chart]:
    """The confusion as shares of each true class, and IoU by class; what cannot be drawn is said in `notes`."""
    try:
        counts = confusion(masks, predictions, len(classes))
    except (OSError, ValueError) as error:
        notes.append(f"{task}: no confusion, the maps of that run are not whole ({error}).")
        return []
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    scores = 100 * iou(counts)
    by_class = {name: float(scores[i]) for i, name in enumerate(classes) if np.isfinite(scores[i])}
    return [
        charts.confusion_chart(f"{task}: given class by true class", list(classes), shares.round(3).tolist()),
        charts.class_chart(f"{task}: IoU by class", by_class),
    ]
