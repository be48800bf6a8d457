"""How a detector errs: precision against recall, and AP by class, from the predictions that a run left."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgh_bench.site import charts
from cgh_bench.site.charts import Chart
from cgh_bench.site.truth import DAMAGED, why

THRESHOLDS = (0.5, 0.75)
"""Of the IoU, for which curves are drawn."""


@dataclass(frozen=True)
class Precision:
    """Of boxes, all areas, 100 detections an image."""

    values: NDArray[np.float64]
    """(T, R, C) by IoU threshold, recall and class; -1 for a class without objects."""
    thresholds: NDArray[np.float64]
    """(T,)"""
    recalls: NDArray[np.float64]
    """(R,)"""
    classes: tuple[str, ...]

    @property
    def present(self) -> NDArray[np.bool_]:
        """(C,): whether there is an object of the class."""
        there: NDArray[np.bool_] = self.values[0, 0] >= 0
        return there

    def curve(self, threshold: float) -> NDArray[np.float64]:
        """Mean precision over the classes that have objects, at each recall, (R,)."""
        nearest = int(np.abs(self.thresholds - threshold).argmin())
        mean: NDArray[np.float64] = self.values[nearest][:, self.present].mean(axis=1)
        return mean

    def by_class(self) -> dict[str, float]:
        """COCO's AP of each class that has objects, in per cent."""
        return {
            name: 100 * float(self.values[:, :, i].mean()) for i, name in enumerate(self.classes) if self.present[i]
        }


def measure(annotations: Path, predictions: Path) -> Precision:
    """Evaluate COCO results against COCO annotations.

    Raises:
        those of `truth.DAMAGED`: these are not such files, or not of the same images.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(predictions)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    names = tuple(category["name"] for category in truth.loadCats(evaluation.params.catIds))
    values = evaluation.eval["precision"][:, :, :, 0, -1]
    found = Precision(values, evaluation.params.iouThrs, evaluation.params.recThrs, names)
    if not found.present.any():
        raise ValueError(f"{annotations.name} has no object of any of its classes")
    return found


def draw(task: str, annotations: Path, predictions: Path, notes: list[str]) -> list[Chart]:
    """Precision against recall, and AP by class; what cannot be drawn is said in `notes`."""
    try:
        found = measure(annotations, predictions)
    except DAMAGED as error:
        notes.append(
            f"{task}: no curves: {predictions.name} or the data are broken, or without detections ({why(error)})."
        )
        return []
    lines = {f"IoU {t:g}": found.curve(t).round(4).tolist() for t in THRESHOLDS}
    return [
        charts.precision_chart(f"{task}: precision and recall of boxes", found.recalls.round(2).tolist(), lines),
        charts.class_chart(f"{task}: box AP by class", found.by_class()),
    ]


def draw_measured(task: str, metrics: Mapping[str, float]) -> list[Chart]:
    """AP by class as the run measured it (`box_AP.CLASS`), by whichever rule; nothing where it did not."""
    by_class = {name.partition(".")[2]: value for name, value in metrics.items() if name.startswith("box_AP.")}
    return [charts.class_chart(f"{task}: box AP by class", by_class)] if by_class else []
