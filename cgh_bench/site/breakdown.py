"""What is behind one figure: charts from whatever the run left in its folder."""

from functools import partial
from pathlib import Path
from typing import Any

from cgh_bench.results import Result
from cgh_bench.site import classification, detection, projection, scenes, segmentation, truth
from cgh_bench.site.charts import Chart


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
        *_of_dense(run, root / run.work, work, notes),
    ]


def _of_dense(run: Result, folder: Path, work: Path, notes: list[str]) -> list[Chart]:
    """Of detections and segmentations, whose truth is read from the data set's own files."""
    detected, segmented = folder / scenes.DETECTIONS, folder / scenes.SEGMENTATIONS
    if not (detected.is_file() or segmented.is_dir()):
        return []
    if detected.is_file():
        objects = truth.read(run, work, notes, truth.objects)
        if objects and objects.file:
            return detection.draw(run.task, objects.file, detected, notes)
        return detection.draw_measured(run.task, truth.metrics(folder))
    maps = truth.read(run, work, notes, partial(truth.maps, metrics=truth.metrics(folder)))
    return segmentation.draw(run.task, maps, segmented, notes) if maps else []
