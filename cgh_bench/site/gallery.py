"""Pictures of what runs did: retrievals, detections and segmentations, several runs side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cgh_bench.results import Result
from cgh_bench.site import retrieval, scenes, truth
from cgh_bench.site.pictures import css_colour

Named = Sequence[tuple[str, Result]]
"""Runs of one task, each with the label of its row."""


@dataclass(frozen=True)
class Gallery:
    """Pictures, ready to be shown."""

    queries: Sequence[retrieval.Query] = ()
    detections: Sequence[scenes.Scene] = ()
    segmentations: Sequence[scenes.Scene] = ()
    classes: Sequence[tuple[str, str]] = ()
    """Of the segmentations: name and CSS colour."""
    least_score: float = scenes.LEAST_SCORE
    """Of a detection that is shown."""


def gallery(by_task: Sequence[Named], root: Path, work: Path, notes: list[str]) -> Gallery:
    """What can be drawn of the side products that runs left in their folders below `root`.

    Args:
        by_task: the runs of each task; of the first one that left a kind of product, that kind is drawn.
        root: folder of the result store.
        work: the workspace; the embedded data sets are in its cache, the others in `$CGH_DATA`.
        notes: what cannot be drawn, and why, is appended.
    """
    asked = _with(by_task, lambda run: (root / run.work / retrieval.FILE).exists())
    detected = _with(by_task, lambda run: (root / run.work / scenes.DETECTIONS).exists())
    segmented = _with(by_task, lambda run: (root / run.work / scenes.SEGMENTATIONS).exists())
    if any(by_task) and not (asked or detected or segmented):
        notes.append("No pictures: the folders that the runs left are not beside the results.")
    queries = retrieval.queries(asked, root, notes) if asked else []
    objects = truth.read(detected[0][1], work, notes, truth.objects) if detected else None
    maps = None
    if segmented:
        names = truth.metrics(root / segmented[0][1].work)
        maps = truth.read(segmented[0][1], work, notes, partial(truth.maps, metrics=names))
    return Gallery(
        queries,
        scenes.detections(objects, detected, root, notes) if objects else (),
        scenes.segmentations(maps, segmented, root, notes) if maps else (),
        [(name, css_colour(index)) for index, name in enumerate(maps.classes)] if maps else (),
    )


def _with(by_task: Sequence[Named], left: Callable[[Result], bool]) -> Named:
    """The runs of the first task of which some run has `left` what is to be drawn."""
    return next((runs for runs in by_task if any(left(run) for _, run in runs)), ())
