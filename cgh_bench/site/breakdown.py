"""What is behind one number: charts of whatever the run left in its folder."""

import contextlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench import data, outcomes
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import write_text
from cgh_bench.data.ground_truth import NO_CLASS, Maps
from cgh_bench.frozen import overlap
from cgh_bench.frozen.drawing import thumbnails
from cgh_bench.outcomes.classification import Classification
from cgh_bench.results import Result
from cgh_bench.site import charts, truth
from cgh_bench.site.charts import Chart
from cgh_bench.site.pictures import data_uri
from cgh_bench.site.truth import noting

DETECTIONS = "predictions.json"
SEGMENTATIONS = "predictions"
CURVES = "curves.json"
"""What a metric of VOC leaves: the mean precision over classes at equally spaced recalls, by IoU."""
THRESHOLDS = (0.5, 0.75)
"""IoU thresholds of the precision-recall curves."""
MOST_CLASSES = 40
"""A confusion matrix of more could not be read."""
POINTS = 800
"""Images in a t-SNE, drawn from all by a fixed seed: more would only take longer."""
PERPLEXITY = 30
THUMBNAIL, COLUMNS = 40, 30
"""Pixels of the picture of a point of the t-SNE, and how many there are in a row of the sheet."""


def draw(run: Result, task: Any, root: Path, work: Path, notes: list[str]) -> list[Chart]:
    """Scores per class, precision and recall, confusion, t-SNE of the features: what can be drawn for this run.

    Args:
        run: whose folder is below `root`.
        task: the task that it ran.
        root: folder of the result store.
        work: the workspace; features and embedded datasets are in its cache.
        notes: what cannot be drawn, and why, is appended.
    """
    outcome = classification(run, root, notes)
    drawn = [charts.class_chart(f"{run.task}: top-1 per class", accuracy_by_class(outcome))] if outcome else []
    with noting(notes, f"{run.task}: no t-SNE; the cached features are damaged"):
        drawn += _projection(run, task, work / "cache")
    return drawn + _dense(run, root / run.work, work, notes)


def classification(run: Result, root: Path, notes: list[str]) -> Classification | None:
    """What the run classified each image as; None if it left no such answers. A damaged file is noted."""
    if not run.work:
        return None
    try:
        found = outcomes.load(root / run.work)
    except FileNotFoundError:
        return None
    except UserError as error:
        notes.append(f"{run.task}: {error}.")
        return None
    return found if isinstance(found, Classification) else None


def accuracy_by_class(outcome: Classification) -> dict[str, float]:
    """Per cent of the val images of each class that were classified correctly, for classes that have any."""
    counts = np.bincount(outcome.target, minlength=len(outcome.classes))
    rates = (outcome.rank < 1).mean(axis=1)
    hits = np.bincount(outcome.target, weights=rates, minlength=len(outcome.classes))
    return {name: 100 * float(hits[i] / counts[i]) for i, name in enumerate(outcome.classes) if counts[i]}


def _projection(run: Result, task: Any, cache: Path) -> list[Chart]:
    """The t-SNE for a run of a task that reads frozen features; empty if these are no longer cached."""
    if not (hasattr(task, "transform") and hasattr(task, "feature")) or not (cache / "features").is_dir():
        return []
    try:
        val = data.load(task.data, "val", cache=cache)
    except UserError:
        return []
    bank = _bank(run.checkpoint, val, task, cache / "features")
    if bank is None or len(val) < 4:
        return []
    rows = np.sort(np.random.default_rng(0).permutation(len(val))[:POINTS])
    kept = cache / "projections" / f"{bank.name}.json"
    if not kept.is_file():
        plane = project(np.load(bank / "features.npy", mmap_mode="r")[rows])
        write_text(kept, json.dumps(plane.round(2).tolist()))
    plane = np.asarray(json.loads(kept.read_text(encoding="utf-8")))
    title = f"{task.feature} of {len(rows)} val images of {val.name}"
    sheet = charts.Sheet(_thumbnails(val, rows, kept.with_name(f"{val.order}.txt")), THUMBNAIL, COLUMNS)
    return [charts.plane_chart(title, plane, np.asarray(val.labels)[rows], val.classes, sheet)]


def _thumbnails(val: data.ImageSet, rows: NDArray[np.int64], kept: Path) -> str:
    """Small pictures of some images on one sheet, a data URI that is remembered in the file `kept`."""
    if not kept.is_file():
        write_text(kept, data_uri(thumbnails(val, rows.tolist(), THUMBNAIL, COLUMNS)))
    return kept.read_text(encoding="utf-8")


def _bank(checkpoint: str, val: data.ImageSet, task: Any, folder: Path) -> Path | None:
    """The folder of the cached features that `task` read of these weights, by what their own records say."""
    from cgh_bench.frozen.features import bank_key

    for done in folder.glob("*/done.json"):
        record = json.loads(done.read_text(encoding="utf-8"))
        key = bank_key(checkpoint, val, task.transform, tuple(record.get("targets", ())), task.precision)
        if (record.get("feature"), done.parent.name) == (task.feature, key):
            return done.parent
    return None


def project(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) to (N, 2): t-SNE of unit vectors, the same on every call.

    Source: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 9 (2008).
    """
    from sklearn.manifold import TSNE

    from cgh_bench.frozen.neighbours import unit_rows

    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(unit_rows(features))


def _dense(run: Result, folder: Path, work: Path, notes: list[str]) -> list[Chart]:
    """Charts of detections and segmentations, compared with the dataset's own files."""
    detected, segmented = folder / DETECTIONS, folder / SEGMENTATIONS
    if detected.is_file():
        objects = truth.objects(run, work, notes)
        if objects and objects.file:
            return detection_charts(run.task, objects.file, detected, notes)
        return [*_kept_curves(run.task, folder, notes), *_measured(run.task, folder, "box")]
    if truth.left_instances(folder):
        return _measured(run.task, folder, "mask")
    if segmented.is_dir():
        maps = truth.maps(run, folder, work, notes)
        return segmentation_charts(run.task, maps, segmented, notes) if maps else []
    return []


@dataclass(frozen=True)
class Precision:
    """Precision of boxes of all areas, with at most 100 detections per image."""

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
        return self.values[0, 0] >= 0

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


def precision(annotations: Path, predictions: Path) -> Precision:
    """Evaluate COCO results against COCO annotations.

    Raises:
        those of `truth.DAMAGED`: these are not such files, or not of the same images.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(annotations))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(str(predictions)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    names = tuple(category["name"] for category in ground_truth.loadCats(evaluation.params.catIds))
    values = evaluation.eval["precision"][:, :, :, 0, -1]
    found = Precision(values, evaluation.params.iouThrs, evaluation.params.recThrs, names)
    if not found.present.any():
        raise ValueError(f"{annotations.name} has no object of any of its classes")
    return found


def detection_charts(task: str, annotations: Path, predictions: Path, notes: list[str]) -> list[Chart]:
    """Precision against recall, and AP per class; what cannot be drawn is noted."""
    with noting(notes, f"{task}: no precision-recall curves; {predictions.name} or the dataset is damaged or empty"):
        found = precision(annotations, predictions)
        lines = {f"IoU {t:g}": found.curve(t).round(4).tolist() for t in THRESHOLDS}
        return [
            charts.precision_chart(f"{task}: precision and recall of boxes", found.recalls.round(2).tolist(), lines),
            charts.class_chart(f"{task}: box AP per class", found.by_class()),
        ]
    return []


def _measured(task: str, folder: Path, kind: str) -> list[Chart]:
    """AP per class as the run measured it, by a metric of its dataset's own."""
    prefix = f"{kind}_AP."
    measured = truth.metrics(folder).items()
    by_class = {name.removeprefix(prefix): ap for name, ap in measured if name.startswith(prefix)}
    return [charts.class_chart(f"{task}: {kind} AP per class", by_class)] if by_class else []


def _kept_curves(task: str, folder: Path, notes: list[str]) -> list[Chart]:
    """Precision against recall as the run's own metric computed it, if it kept that."""
    if not (folder / CURVES).is_file():
        return []
    with noting(notes, f"{task}: no precision-recall curves; {CURVES} is damaged"):
        kept = json.loads((folder / CURVES).read_text(encoding="utf-8"))
        lines = {f"IoU {iou}": [float(value) for value in line] for iou, line in kept.items()}
        recalls = np.linspace(0, 1, len(next(iter(lines.values())))).round(2).tolist()
        return [charts.precision_chart(f"{task}: precision and recall of boxes", recalls, lines)]
    return []


def confusion(maps: Iterable[tuple[Path, Path]], classes: int) -> overlap.Counts:
    """`overlap.confusion` of the files of true and predicted maps.

    Raises:
        those of `truth.DAMAGED`: a map is missing, not a picture, or of another size.
    """
    counts = np.zeros((classes, classes), np.int64)
    for true, predicted in maps:
        counts += overlap.confusion(np.asarray(Image.open(true)), np.asarray(Image.open(predicted)), classes)
    return counts


def segmentation_charts(task: str, maps: Maps, predictions: Path, notes: list[str]) -> list[Chart]:
    """The confusion matrix, for at most `MOST_CLASSES` classes, and IoU per class; what cannot be drawn is noted."""
    with noting(notes, f"{task}: no confusion matrix; predicted maps are missing or damaged"):
        pairs = [(true, predictions / f"{image.stem}.png") for image, true in maps.pairs]
        counts = confusion(pairs, len(maps.values))
        known = [value for value, name in enumerate(maps.values) if name != NO_CLASS]
        counts, classes = counts[np.ix_(known, known)], [maps.values[value] for value in known]
        scores = 100 * overlap.iou(counts)
        by_class = {name: float(scores[i]) for i, name in enumerate(classes) if np.isfinite(scores[i])}
        drawn = [charts.class_chart(f"{task}: IoU per class", by_class)]
        if len(classes) <= MOST_CLASSES:
            shares = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).round(3).tolist()
            drawn.insert(0, charts.confusion_chart(f"{task}: confusion matrix", classes, shares))
        return drawn
    return []
