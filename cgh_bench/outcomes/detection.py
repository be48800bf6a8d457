"""Which objects a detector found: by COCO's rules, VOC's or Cityscapes'."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cgh_bench.outcomes.base import Floats, Ints, Outcomes, named, named_images

Area = Callable[[Ints, Ints, int, Floats], Floats]
"""(T,) AP of one class: from the right and the wrong detections so far, (n, T) each, the surest first, at T IoU
thresholds; the number of objects to find; and the scores (n,)."""


def at_recalls(recalls: Floats, true: Ints, false: Ints, total: int, score: Floats) -> Floats:
    """The mean over `recalls` of the best precision at that recall or a higher one.

    Sources: pycocotools `cocoeval.py`; M. Everingham et al., The PASCAL VOC Challenge, IJCV 2010, 4.2.
    """
    precision = true / np.maximum(true + false, np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall, padded = true / total, np.vstack([precision, np.zeros((1, precision.shape[1]))])
    places = [np.searchsorted(column, recalls, side="left") for column in recall.T]
    return np.array([padded[place, column].mean() for column, place in enumerate(places)])


def trapezoids(true: Ints, false: Ints, total: int, score: Floats) -> Floats:
    """The area below straight lines between the points of all scores, from precision 1 at recall 0.

    Source: mcordts/cityscapesScripts, evalInstanceLevelSemanticLabeling.py.
    """
    last = np.flatnonzero(np.append(np.diff(score) != 0, [True] * (len(score) > 0)))  # equal scores are one point
    true, seen = true[last], (true + false)[last]
    precision = np.divide(true, seen, out=np.ones(true.shape), where=seen > 0)
    recall = np.vstack([np.zeros(true.shape[1]), true / total])
    precision = np.vstack([np.ones(true.shape[1]), precision])
    return ((precision[1:] + precision[:-1]) / 2 * np.diff(recall, axis=0)).sum(axis=0)


RULES: Mapping[str, Area] = {
    "": partial(at_recalls, np.linspace(0, 1, 101, dtype=np.float64)),
    "VOC2007": partial(at_recalls, np.arange(11, dtype=np.float64) * 0.1),
    "Cityscapes": trapezoids,
}
"""COCO's rules have no name."""

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True, eq=False)
class Matches:
    """D detections of one kind, the surest of each class first, and what they found at ten IoU thresholds T."""

    image: Ints
    """(D,)"""
    label: Ints
    """(D,) the class."""
    score: Floats
    """(D,)"""
    found: NDArray[np.bool_]
    """(D, T): whether an object was found."""
    ignored: NDArray[np.bool_]
    """(D, T): whether it counts neither way (crowds)."""
    objects: Ints
    """(N, C): how many there are to find."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Detection(Outcomes):
    """Which objects were found; by COCO's rules of all areas, by at most 100 detections per image (keypoints: 20)."""

    KIND = "detection"
    kinds: Mapping[str, Matches]
    """`box`, `mask`, `keypoint`."""

    def measure(self, metric: str, counts: Ints) -> Floats:
        """`box_AP`, `mask_AP50`, … by COCO's rules, or by those whose name stands before: `VOC2007 box_AP`."""
        rules, _, by = self.measures[metric].rpartition(" ")
        kind, _, threshold = by.partition("_AP")
        matches = self.kinds[kind]
        thresholds = [int(np.abs(IOU_THRESHOLDS - float(f"0.{threshold}")).argmin())] if threshold else range(10)
        each = (np.nanmean(self.precisions(matches, row, RULES[rules])[list(thresholds)]) for row in counts)
        return np.array(list(each)) * 100

    def precisions(self, matches: Matches, counts: Ints, area: Area) -> Floats:
        """Average precision (T, C) at each threshold, NaN for classes without objects."""
        values = np.full((len(IOU_THRESHOLDS), len(self.classes)), np.nan)
        weight = counts[matches.image][:, None]
        hits, misses = weight * (matches.found & ~matches.ignored), weight * ~(matches.found | matches.ignored)
        ends = np.searchsorted(matches.label, np.arange(len(self.classes) + 1))
        totals = counts @ matches.objects
        for label, total in enumerate(totals):
            if total:
                rows = slice(ends[label], ends[label + 1])
                true, false = hits[rows].cumsum(axis=0), misses[rows].cumsum(axis=0)
                values[:, label] = area(true, false, total, matches.score[rows])
        return values

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Outcomes`."""
        return {
            f"{kind}:{name}": getattr(matches, name)
            for kind, matches in self.kinds.items()
            for name in Matches.__dataclass_fields__
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, Any], **common: Any) -> Self:
        """See `Outcomes`."""
        kinds = dict.fromkeys(name.partition(":")[0] for name in arrays)
        return cls(**common, kinds={kind: Matches(**named(f"{kind}:", arrays)) for kind in kinds})

    def rows(self) -> Iterator[Sequence[Any]]:
        """One line per detection: whether it is right at each IoU."""
        yield ["kind", "image", "class", "score", *(f"IoU {threshold:.2f}" for threshold in IOU_THRESHOLDS)]
        for kind, m in self.kinds.items():
            for image, label, score, found, ignored in zip(m.image, m.label, m.score, m.found, m.ignored, strict=True):
                told = np.where(ignored, "ignored", np.where(found, "right", "wrong"))
                yield [kind, self.images.ids[image], self.classes[label], repr(float(score)), *told]


def detection(name: str, content: str, annotations: Path, predictions: Path, metrics: Sequence[str]) -> Detection:
    """The outcomes of a detector, by pycocotools.

    Args:
        name: of dataset and split.
        content: the dataset's fingerprint.
        annotations: ground truth, COCO's JSON.
        predictions: detections in COCO's results format, with boxes, masks or keypoints.
        metrics: those that the task reports: `box_AP`, `mask_AP50`, ….

    Raises:
        ValueError, LookupError, AssertionError: these are not such files, or not of the same images.
    """
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
    lines = json.loads(predictions.read_text(encoding="utf-8"))
    numbers, categories = sorted(truth.getImgIds()), sorted(truth.getCatIds())
    names = [str(entry.get("file_name", entry["id"])) for entry in truth.loadImgs(numbers)]
    return Detection(
        images=named_images(name, names, content),
        classes=tuple(category["name"] for category in truth.loadCats(categories)),
        measures={metric: metric for metric in metrics},
        kinds={
            kind: _matches(truth, lines, cocos, numbers, categories)
            for kind, cocos in {"box": "bbox", "mask": "segm", "keypoint": "keypoints"}.items()
            if any(metric.startswith(kind) for metric in metrics)
        },
    )


def judged(name: str, content: str, stored: Mapping[str, Any], rules: str, metrics: Sequence[str]) -> Detection:
    """The outcomes of a detector that a dataset's own metric has judged.

    Args:
        name: of dataset and split.
        content: the dataset's fingerprint.
        stored: the fields of `Matches`, `images` and `classes`.
        rules: by which AP is computed, a key of `RULES`.
        metrics: those that the task reports, all of one kind: `box_AP`, `box_AP50`, ….
    """
    (kind,) = {metric.partition("_")[0] for metric in metrics}
    arrays = {field: stored[field] for field in Matches.__dataclass_fields__}
    return Detection(
        images=named_images(name, stored["images"].tolist(), content),
        classes=tuple(stored["classes"].tolist()),
        measures={metric: f"{rules} {metric}" for metric in metrics},
        kinds={kind: Matches(**arrays)},
    )


def _matches(truth: Any, lines: list[dict[str, Any]], kind: str, numbers: list[int], categories: list[int]) -> Matches:
    from pycocotools.cocoeval import COCOeval

    if kind == "segm":  # with a box beside it, pycocotools would take the box's area for the mask's
        lines = [{key: value for key, value in line.items() if key != "bbox"} for line in lines]
    thresholds, images, classes = len(IOU_THRESHOLDS), len(numbers), len(categories)
    objects = np.zeros((images, classes), np.int64)
    parts: list[tuple[NDArray[Any], ...]] = []
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(lines) if lines else _none(truth), kind)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    for place, found in enumerate(evaluation.evalImgs):
        label, image = divmod(place, images)
        if found is None:
            continue
        objects[image, label] = (np.asarray(found["gtIgnore"]) == 0).sum()
        count = len(found["dtScores"])
        parts.append(
            (
                np.full(count, image),
                np.full(count, label),
                np.asarray(found["dtScores"], np.float64),
                np.asarray(found["dtMatches"]).T.reshape(count, thresholds) > 0,
                np.asarray(found["dtIgnore"]).T.reshape(count, thresholds) > 0,
            )
        )
    empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), *[np.zeros((0, thresholds), bool)] * 2)
    of_image, labels, scores, right, ignored = [np.concatenate(column) for column in zip(empty, *parts, strict=True)]
    order = np.lexsort((-scores, labels))  # stable, as pycocotools' mergesort
    return Matches(of_image[order], labels[order], scores[order], right[order], ignored[order], objects)


def _none(truth: Any) -> Any:
    """Results without a detection, which `loadRes` refuses."""
    from pycocotools.coco import COCO

    empty = COCO()
    empty.dataset = {"images": truth.dataset["images"], "categories": truth.dataset["categories"], "annotations": []}
    empty.createIndex()
    return empty
