"""Pictures of what runs did: retrievals, detections and segmentations, several runs side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cgh_bench.data import dense
from cgh_bench.data import scenes as embedded
from cgh_bench.report import retrieval, scenes
from cgh_bench.report.pictures import css_colour
from cgh_bench.results import Result

Named = Sequence[tuple[str, Result]]
"""Runs of one task, each with the label of its row."""


@dataclass(frozen=True)
class Gallery:
    """Pictures, ready to be shown."""

    queries: Sequence[retrieval.Query] = ()
    detections: Sequence[scenes.Scene] = ()
    segmentations: Sequence[scenes.Scene] = ()
    classes: Sequence[tuple[str, str]] = ()
    """Name and CSS colour."""
    least_score: float = scenes.LEAST_SCORE
    """Of a detection that is shown."""


def gallery(by_task: Sequence[Named], root: Path, work: Path, notes: list[str]) -> Gallery:
    """What can be drawn of the side products that runs left in their folders below `root`.

    Args:
        by_task: the runs of each task; of the first one that left a kind of product, that kind is drawn.
        root: folder of the result store.
        work: the workspace; the embedded data sets are in its cache.
        notes: what cannot be drawn, and why, is appended.
    """
    asked = _with(by_task, lambda run: (root / run.work / retrieval.FILE).exists())
    detected = _with(by_task, lambda run: _on_scenes(run) and (root / run.work / scenes.DETECTIONS).exists())
    segmented = _with(by_task, lambda run: _on_scenes(run) and (root / run.work / scenes.SEGMENTATIONS).exists())
    if any(by_task) and not (asked or detected or segmented):
        notes.append("No pictures: the folders that the runs left are not beside the results.")
    queries = retrieval.queries(asked, root, notes) if asked else []
    if not detected and not segmented:
        return Gallery(queries)
    located = dense.locate(embedded.NAME, work / "cache")
    if any(run.data != located.fingerprint for _, run in [*detected, *segmented]):
        notes.append(f"No detections and segmentations: the runs were on other {embedded.NAME} than today's.")
        return Gallery(queries)
    truth = scenes.read_truth(located.root / embedded.NAME / "val")
    return Gallery(
        queries,
        scenes.detections(truth, detected, root, notes),
        scenes.segmentations(truth, segmented, root, notes),
        [(name, css_colour(index)) for index, name in enumerate(truth.classes)],
    )


def _on_scenes(run: Result) -> bool:
    """Only the embedded scenes are at hand to draw on."""
    return run.config.get("data") == embedded.NAME


def _with(by_task: Sequence[Named], left: Callable[[Result], bool]) -> Named:
    """The runs of the first task of which some run has `left` what is to be drawn."""
    return next((runs for runs in by_task if any(left(run) for _, run in runs)), ())
