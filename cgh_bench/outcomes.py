"""What a run answered for each image: one file per run, from which its numbers can be computed again.

`outcomes.npz` holds `about` (JSON: version, kind, set, order, classes, measures), `images` (one id a line) and the
arrays of its kind; docs/results.md describes it for other readers.
"""

import contextlib
import csv
import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.arrays import load_arrays
from cgh_bench.core.errors import UserError, printable
from cgh_bench.core.files import replacing
from cgh_bench.data.image_set import ImageSet
from cgh_bench.results import Result

FILE = "outcomes.npz"
VERSION = 1
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Images:
    """Which images were answered for, in order."""

    name: str
    """Dataset and split."""
    ids: tuple[str, ...]
    order: str
    """Sixteen hex digits of the images and their order: two runs with the same can be compared image by image."""

    def __len__(self) -> int:
        return len(self.ids)


def images_of(images: ImageSet) -> Images:
    """The images of a labelled set."""
    return Images(images.name, tuple(printable(images.called(index)) for index in range(len(images))), images.order)


def some_of(images: Images, rows: Sequence[int]) -> Images:
    """Some of the images, by their numbers; all keep their name."""
    if len(rows) == len(images):
        return images
    return named_images(images.name, [images.ids[row] for row in rows], images.order)


def named_images(name: str, ids: Sequence[str], content: str) -> Images:
    """Images that are known by name, of a dataset with this fingerprint."""
    digest = hashlib.sha256("\0".join([content, *ids]).encode(errors="surrogateescape"))
    return Images(name, tuple(map(printable, ids)), digest.hexdigest()[:16])


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcomes(ABC):
    """What a run answered for N images."""

    KIND: ClassVar[str]
    images: Images
    classes: tuple[str, ...]
    measures: Mapping[str, str] = field(default_factory=dict)
    """Metrics that these outcomes determine, and the measure of this kind that gives each."""

    def metrics(self) -> dict[str, float]:
        """Every metric that is determined, from these outcomes alone."""
        return {name: float(self.measure(name, np.ones((1, len(self.images)), np.int64))[0]) for name in self.measures}

    def each(self, metric: str) -> Floats | None:
        """The metric of every image (N,), where it is a mean over images; else None."""
        return None

    @abstractmethod
    def measure(self, metric: str, counts: Ints) -> Floats:
        """The metric (B,) where image n occurs `counts[b, n]` times, for `counts` (B, N)."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored, by name."""

    @abstractmethod
    def rows(self) -> Iterator[Sequence[Any]]:
        """The table of `to_csv`: the header, then the lines."""

    def to_csv(self) -> str:
        """The outcomes as a table, in a form for people and spreadsheets."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(self.rows())
        return out.getvalue()

    def save(self, folder: Path) -> None:
        """Write `outcomes.npz` in a run's folder, whole or not at all."""
        about = {
            "version": VERSION,
            "kind": self.KIND,
            "set": self.images.name,
            "order": self.images.order,
            "classes": self.classes,
            "measures": dict(self.measures),
        }
        texts = {"about": json.dumps(about), "images": "\n".join(self.images.ids)}
        stored: dict[str, Any] = {name: np.frombuffer(text.encode(), np.uint8) for name, text in texts.items()}
        stored |= {name: _smallest(array) for name, array in self.arrays().items()}
        with replacing(folder / FILE) as path:
            np.savez_compressed(path, **stored)


def _smallest(array: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the smallest type that holds them."""
    if array.dtype.kind != "i" or not array.size:
        return array
    low, high = int(array.min()), int(array.max())
    return array.astype(np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)))


def _per_cent(parts: Floats, wholes: Floats) -> Floats:
    """100 times `parts` / `wholes`, NaN where there is no whole."""
    shares: Floats = np.divide(100 * parts, wholes, out=np.full(np.shape(parts), np.nan), where=wholes > 0)
    return shares


@dataclass(frozen=True, eq=False, kw_only=True)
class Classification(Outcomes):
    """One class for each image, in R repeats (1 where a task has none)."""

    KIND = "classification"
    target: Ints
    """(N,)"""
    predicted: Ints
    """(N, R)"""
    rank: Ints
    """(N, R): how many classes come before the true one."""
    right: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Metrics that are the share of other answers that are right, with these (N,): `top1_k10`, …."""

    def each(self, metric: str) -> Floats | None:
        """Per cent of the repeats in which the image is right."""
        if metric in self.right:
            return np.where(self.right[metric], 100.0, 0.0)
        limit = {"top1": 1, "top5": 5}.get(self.measures[metric])
        if limit is None:
            return None
        shares: Floats = 100 * (self.rank < limit).mean(axis=1, dtype=np.float64)
        return shares

    def measure(self, metric: str, counts: Ints) -> Floats:
        """See `Outcomes`."""
        values = self.each(metric)
        if values is not None:
            means: Floats = counts @ values / counts.sum(axis=1)
            return means
        by = self.measures[metric]
        hits = self.rank < 1
        if by == "top1_std":
            found: Floats = np.std(100 * (counts @ hits) / counts.sum(axis=1)[:, None], axis=1, ddof=1)
            return found
        if by == "class_balanced":
            order = np.argsort(self.target, kind="stable")
            drawn, starts = counts[:, order], np.flatnonzero(np.diff(self.target[order], prepend=-1))
            total = np.add.reduceat(drawn, starts, axis=1)
            repeats = [_per_cent(np.add.reduceat(drawn * hit, starts, axis=1), total) for hit in hits[order].T]
            balanced: Floats = np.mean([np.nanmean(shares, axis=1) for shares in repeats], axis=0)
            return balanced
        return np.array([100 * _agreement(by, *(np.repeat(a, c) for a in self._pair)) for c in counts])

    @property
    def _pair(self) -> tuple[Ints, Ints]:
        return self.target, self.predicted[:, 0]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Outcomes`."""
        also = {f"right:{name}": values for name, values in self.right.items()}
        return {"target": self.target, "predicted": self.predicted, "rank": self.rank, **also}

    def rows(self) -> Iterator[Sequence[Any]]:
        """One line per image and repeat."""
        yield ["image", "target", "predicted", "rank", *(["repeat"] if self.rank.shape[1] > 1 else [])]
        for repeat, (predicted, ranks) in enumerate(zip(self.predicted.T, self.rank.T, strict=True)):
            for name, true, given, rank in zip(self.images.ids, self.target, predicted, ranks, strict=True):
                line = [name, self.classes[true], self.classes[given], rank]
                yield [*line, repeat] if self.rank.shape[1] > 1 else line


def _agreement(by: str, target: Ints, predicted: Ints) -> float:
    from sklearn import metrics

    score = {
        "NMI": metrics.normalized_mutual_info_score,
        "AMI": metrics.adjusted_mutual_info_score,
        "ARI": metrics.adjusted_rand_score,
    }[by]
    return float(score(target, predicted))


def classification(
    images: ImageSet,
    predicted: NDArray[Any],
    rank: NDArray[Any] | None = None,
    measures: Mapping[str, str] | None = None,
    right: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Classification:
    """The outcomes of a classifier of `images`.

    Args:
        images: with one label each.
        predicted: (N,) or (N, R) classes.
        rank: of the true class, of the same shape; without it, 0 where right and 1 where wrong.
        measures: what gives which metric; default: top-1, top-5 (of more than five classes) and the mean over classes.
        right: see `Classification`.
    """
    predicted = predicted.reshape(len(images), -1).astype(np.int64)
    ranks = predicted != images.labels[:, None] if rank is None else rank.reshape(predicted.shape)
    if measures is None:
        top5 = {"top5": "top5"} if rank is not None and len(images.classes) > 5 else {}
        measures = {"top1": "top1", **top5, "class_balanced": "class_balanced"}
    return Classification(
        images=images_of(images),
        classes=images.classes,
        measures={**measures, **dict.fromkeys(right or {}, "right")},
        target=images.labels,
        predicted=predicted,
        rank=ranks.astype(np.int64),
        right=right or {},
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiLabel(Outcomes):
    """A score of every class for each image."""

    KIND = "multi-label"
    target: Ints
    """(N, C): 1 present, 0 absent, -1 not counted."""
    score: Floats
    """(N, C)"""

    def measure(self, metric: str, counts: Ints) -> Floats:
        """The mean over classes of their average precision, by one of three definitions of the area."""
        by_class = [self._precision(self.measures[metric], column, counts) for column in range(len(self.classes))]
        means: Floats = 100 * np.nanmean(by_class, axis=0)
        return means

    def _precision(self, by: str, column: int, counts: Ints) -> Floats:
        """Average precision (B,) of one class, images of equal score together."""
        known = np.flatnonzero(self.target[:, column] >= 0)
        order = known[np.argsort(-self.score[known, column], kind="stable")]
        scores, present = self.score[order, column], self.target[order, column] == 1
        drawn = counts[:, order]
        seen, hits = drawn.cumsum(axis=1), (drawn * present).cumsum(axis=1)
        if by != "area":  # that of the sources of `svm` ranks equal scores in the order of the images
            last = np.append(np.diff(scores) != 0, True)
            seen, hits = seen[:, last], hits[:, last]
        total = hits[:, -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision, recall = np.where(seen > 0, hits / seen, 0), hits / total
        if by != "mean":
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        if by == "11 points":
            places = [(recall < tenth / 10 - 1e-9).sum(axis=1) for tenth in range(11)]
            padded = np.pad(precision, ((0, 0), (0, 1)))
            found = np.mean([padded[np.arange(len(place)), place] for place in places], axis=0)
        else:
            found = (precision * np.diff(recall, axis=1, prepend=0)).sum(axis=1)
        return np.where(total[:, 0] > 0, found, np.nan)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Outcomes`."""
        return {"target": self.target, "score": self.score}

    def rows(self) -> Iterator[Sequence[Any]]:
        """One line per image and class."""
        yield ["image", "class", "target", "score"]
        for name, targets, scores in zip(self.images.ids, self.target, self.score, strict=True):
            for label, target, score in zip(self.classes, targets, scores, strict=True):
                yield [name, label, target, repr(float(score))]


def multi_label(images: ImageSet, target: Ints, score: Floats, measures: Mapping[str, str]) -> MultiLabel:
    """The outcomes of scores (N, C); each of the `measures` is `mean`, `area` (made falling) or `11 points`."""
    return MultiLabel(images=images_of(images), classes=images.classes, measures=measures, target=target, score=score)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores(Outcomes):
    """A number of each image for each metric: a query's average precision, the share of a pair's points found."""

    KIND = "scores"
    target: Ints
    """(N,) The class of each image."""
    weight: Ints
    """(N,) How much it counts in metrics by "weight": its points."""
    value: Mapping[str, Floats]
    """For each metric, (N,)."""

    def each(self, metric: str) -> Floats | None:
        """See `Outcomes`."""
        return self.value[metric] if self.measures[metric] == "mean" else None

    def measure(self, metric: str, counts: Ints) -> Floats:
        """The mean over images, over their weight, or over classes of the mean over their images."""
        by, values = self.measures[metric], self.value[metric]
        if by == "class":
            member = self.target[:, None] == np.unique(self.target)
            sums, sizes = counts @ (member * values[:, None]), counts @ member.astype(np.int64)
            means: Floats = np.nanmean(_per_cent(sums, sizes) / 100, axis=1)
            return means
        drawn = counts * self.weight if by == "weight" else counts
        found: Floats = drawn @ values / drawn.sum(axis=1)
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Outcomes`."""
        also = {f"value:{name}": values for name, values in self.value.items()}
        return {"target": self.target, "weight": self.weight, **also}

    def rows(self) -> Iterator[Sequence[Any]]:
        """One line per image."""
        yield ["image", "target", "weight", *self.value]
        for name, target, weight, *values in zip(
            self.images.ids, self.target, self.weight, *self.value.values(), strict=True
        ):
            yield [name, self.classes[target], weight, *(repr(float(value)) for value in values)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation(Outcomes):
    """How many pixels of each class were taken for each class, image by image."""

    KIND = "segmentation"
    pixels: Ints
    """(M, 4): image, true class, predicted class, how many pixels; only those that occur."""

    @cached_property
    def areas(self) -> tuple[Floats, Floats, Floats]:
        """Pixels of each image and class (N, C): right, true, predicted."""
        image, true, given, count = self.pixels.T
        shape = len(self.images), len(self.classes)
        same = true == given
        found = []
        for rows, columns, weights in (
            (image[same], true[same], count[same]),
            (image, true, count),
            (image, given, count),
        ):
            flat = np.bincount(rows * shape[1] + columns, weights=weights, minlength=shape[0] * shape[1])
            found.append(flat.astype(np.float64).reshape(shape))
        right, true_area, given_area = found
        return right, true_area, given_area

    def measure(self, metric: str, counts: Ints) -> Floats:
        """See `Outcomes`."""
        right, true, given = (counts @ area for area in self.areas)
        by = self.measures[metric]
        if by == "aAcc":
            return _per_cent(right.sum(axis=1), true.sum(axis=1))
        wholes = true + given - right if by == "mIoU" else true
        means: Floats = np.nanmean(_per_cent(right, wholes), axis=1)
        return means

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Outcomes`."""
        return {"pixels": self.pixels}

    def rows(self) -> Iterator[Sequence[Any]]:
        """One line per image, true class and predicted class."""
        yield ["image", "target", "predicted", "pixels"]
        for image, true, given, count in self.pixels:
            yield [self.images.ids[image], self.classes[true], self.classes[given], count]


def segmentation(
    images: Images,
    classes: Sequence[str],
    maps: Iterator[tuple[NDArray[Any], NDArray[Any]]],
    measures: Sequence[str] = ("mIoU", "mAcc", "aAcc"),
) -> Segmentation:
    """The outcomes of a segmentation.

    Args:
        images: which, in the order of `maps`.
        classes: C of them.
        maps: for each image the true and the predicted class of its pixels, of equal shape; pixels whose true class is
            not in 0 … C - 1 do not count.
        measures: which of mIoU, mAcc and aAcc the task reports.

    Raises:
        ValueError: a predicted map is of another size.
    """
    count, lines = len(classes), []
    for number, (true, given) in enumerate(maps):
        if true.shape != given.shape:
            raise ValueError(f"the map predicted for {images.ids[number]} is {given.shape}, not {true.shape}")
        counted = (true >= 0) & (true < count) & (given >= 0) & (given < count)
        pairs = true[counted].astype(np.int64) * count + given[counted]
        totals = np.bincount(pairs, minlength=1)
        there = np.flatnonzero(totals)
        lines.append(np.stack([np.full(len(there), number), there // count, there % count, totals[there]], axis=1))
    pixels = np.concatenate(lines) if lines else np.zeros((0, 4), np.int64)
    return Segmentation(
        images=images, classes=tuple(classes), measures={name: name for name in measures}, pixels=pixels
    )


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
    """Which objects were found, by COCO's rules: all areas, at most 100 detections per image."""

    KIND = "detection"
    kinds: Mapping[str, Matches]
    """`box`, `mask`."""

    def measure(self, metric: str, counts: Ints) -> Floats:
        """`box_AP`, `mask_AP50`, …: COCO's average precision, as pycocotools accumulates it."""
        kind, _, threshold = self.measures[metric].partition("_AP")
        matches = self.kinds[kind]
        thresholds = [int(np.abs(IOU_THRESHOLDS - float(f"0.{threshold}")).argmin())] if threshold else range(10)
        return np.array([np.nanmean(self.precisions(matches, row)[list(thresholds)]) for row in counts]) * 100

    def precisions(self, matches: Matches, counts: Ints) -> Floats:
        """Average precision (T, C) at each threshold, NaN for classes without objects."""
        values = np.full((len(IOU_THRESHOLDS), len(self.classes)), np.nan)
        weight = counts[matches.image][:, None]
        hits, misses = weight * (matches.found & ~matches.ignored), weight * ~(matches.found | matches.ignored)
        ends = np.searchsorted(matches.label, np.arange(len(self.classes) + 1))
        totals = counts @ matches.objects
        for label, total in enumerate(totals):
            if not total:
                continue
            rows = slice(ends[label], ends[label + 1])
            true, false = hits[rows].cumsum(axis=0), misses[rows].cumsum(axis=0)
            precision = true / np.maximum(true + false, np.spacing(1))
            precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
            recall, padded = true / total, np.vstack([precision, np.zeros((1, 10))])
            for column in range(len(IOU_THRESHOLDS)):
                places = np.searchsorted(recall[:, column], RECALLS, side="left")
                values[column, label] = padded[places, column].mean()
        return values

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Outcomes`."""
        return {
            f"{kind}:{name}": getattr(matches, name)
            for kind, matches in self.kinds.items()
            for name in Matches.__dataclass_fields__
        }

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
        predictions: detections in COCO's results format, with boxes, masks or both.
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
            for kind, cocos in {"box": "bbox", "mask": "segm"}.items()
            if any(metric.startswith(kind) for metric in metrics)
        },
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


def of_run(result: Result, root: Path) -> Outcomes:
    """The outcomes that a run left in its folder below `root`, that of the results.

    Raises:
        UserError: it left none, with how to make them, or they are damaged.
    """
    try:
        if not result.work:
            raise FileNotFoundError
        return load(root / result.work)
    except FileNotFoundError:
        how = "another tool measured it" if result.imported else f"run `cgh-bench eval {result.task} --again` on it"
        what = f"{result.task} of {result.checkpoint_name}, seed {result.seed}"
        raise UserError(f"{what} kept no answers for each image ({FILE}); {how}") from None


def load(folder: Path) -> Outcomes:
    """The outcomes that a run left in `folder`.

    Raises:
        FileNotFoundError: it left none.
        UserError: the file is damaged, or of another version.
    """
    path = folder / FILE
    try:
        stored = load_arrays(path)
        about, ids = (stored.pop(name).tobytes().decode() for name in ("about", "images"))
        return _read(json.loads(about), tuple(ids.split("\n")), stored, path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged ({type(error).__name__}: {reason}); run that evaluation again") from None


def _read(about: Mapping[str, Any], ids: tuple[str, ...], arrays: dict[str, Any], path: Path) -> Outcomes:
    if about["version"] != VERSION:
        raise UserError(f"{path} has version {about['version']}; this cgh-bench reads version {VERSION}")
    wide = {name: array.astype(np.int64) if array.dtype.kind in "iu" else array for name, array in arrays.items()}
    common: dict[str, Any] = {
        "images": Images(about["set"], ids, about["order"]),
        "classes": tuple(about["classes"]),
        "measures": about["measures"],
    }
    kind = about["kind"]
    if kind == Classification.KIND:
        right = {name.removeprefix("right:"): wide.pop(name) for name in list(wide) if name.startswith("right:")}
        found: Outcomes = Classification(**common, **wide, right=right)
    elif kind == Scores.KIND:
        values = {name.removeprefix("value:"): wide.pop(name) for name in list(wide) if name.startswith("value:")}
        found = Scores(**common, **wide, value=values)
    elif kind == Detection.KIND:
        parts: dict[str, dict[str, Any]] = {}
        for name, array in wide.items():
            of, _, what = name.partition(":")
            parts.setdefault(of, {})[what] = array
        found = Detection(**common, kinds={of: Matches(**fields) for of, fields in parts.items()})
    else:
        found = {MultiLabel.KIND: MultiLabel, Segmentation.KIND: Segmentation}[kind](**common, **wide)
    first = getattr(found, "target", None)
    if first is not None and len(first) != len(ids):
        raise ValueError(f"{len(first)} targets of {len(ids)} images")
    return found
