"""What is behind one figure: charts from whatever the run left in its folder."""

from pathlib import Path
from typing import Any

from cgh_bench.data import dense
from cgh_bench.data import scenes as embedded
from cgh_bench.report import classification, detection, projection, scenes, segmentation
from cgh_bench.report.charts import Chart
from cgh_bench.results import Result


def draw(run: Result, task: Any, root: Path, work: Path, notes: list[str]) -> list[Chart]:
    """By class, precision against recall, confusion, features in the plane: what there is to draw of.

    Args:
        run: whose folder is below `root`.
        task: that it ran.
        root: folder of the result store.
        work: the workspace; features and embedded data sets are in its cache.
        notes: what cannot be drawn, and why, is appended.
    """
    return [
        *classification.draw(run, root),
        *projection.draw(run, task, work / "cache"),
        *_of_scenes(run, root / run.work, work, notes),
    ]


def _of_scenes(run: Result, folder: Path, work: Path, notes: list[str]) -> list[Chart]:
    """Of detections and segmentations of the embedded scenes, the only ones whose truth is always at hand."""
    detected, segmented = folder / scenes.DETECTIONS, folder / scenes.SEGMENTATIONS
    if run.config.get("data") != embedded.NAME or not (detected.is_file() or segmented.is_dir()):
        return []
    located = dense.locate(embedded.NAME, work / "cache")
    if run.data != located.fingerprint:
        return []
    val = located.root / embedded.NAME / "val"
    if detected.is_file():
        return detection.draw(run.task, val / "annotations.json", detected, notes)
    classes = ["background", *scenes.read_truth(val).classes]
    return segmentation.draw(run.task, val / "masks", segmented, classes, notes)
