"""How a segmenter errs: which class it takes for which, and IoU by class, from the maps that a run left."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.site import charts
from cgh_bench.site.charts import Chart
from cgh_bench.site.truth import DAMAGED, NO_CLASS, Maps, why

MOST_CLASSES = 40
Counts = NDArray[np.int64]


def confusion(maps: Iterable[tuple[Path, Path]], classes: int) -> Counts:
    """How many pixels of each true class were given each class, (C, C); pixels of no class (255) do not count.

    Args:
        maps: true and predicted maps of class indices.
        classes: C.

    Raises:
        those of `truth.DAMAGED`: a map is missing, no picture, or of another size.
    """
    counts = np.zeros(classes * classes, np.int64)
    for true, predicted in maps:
        truth = np.asarray(Image.open(true)).astype(np.int64).ravel()
        given = np.asarray(Image.open(predicted)).astype(np.int64).ravel()
        known = (truth < classes) & (given < classes)
        counts += np.bincount(truth[known] * classes + given[known], minlength=classes * classes)
    return counts.reshape(classes, classes)


def iou(counts: Counts) -> NDArray[np.float64]:
    """The IoU of each class (C,), NaN for one that is neither there nor predicted."""
    hits = counts.diagonal()
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    shares: NDArray[np.float64] = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
    return shares


def draw(task: str, truth: Maps, predictions: Path, notes: list[str]) -> list[Chart]:
    """The confusion as shares of each true class, and IoU by class; what cannot be drawn is said in `notes`.

    Of more than `MOST_CLASSES` no confusion: nobody could read it.
    """
    maps = [(true, predictions / f"{image.stem}.png") for image, true in truth.pairs]
    try:
        counts = confusion(maps, len(truth.values))
    except DAMAGED as error:
        notes.append(f"{task}: no confusion, the maps of that run are not whole ({why(error)}).")
        return []
    known = [value for value, name in enumerate(truth.values) if name != NO_CLASS]
    counts, classes = counts[np.ix_(known, known)], [truth.values[value] for value in known]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    scores = 100 * iou(counts)
    by_class = {name: float(scores[i]) for i, name in enumerate(classes) if np.isfinite(scores[i])}
    drawn = [charts.class_chart(f"{task}: IoU by class", by_class)]
    if len(classes) <= MOST_CLASSES:
        drawn.insert(0, charts.confusion_chart(f"{task}: given class by true class", classes, shares.round(3).tolist()))
    return drawn
