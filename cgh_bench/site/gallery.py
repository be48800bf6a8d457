"""Pictures of what runs did, side by side: nearest neighbours, detections and segmentations of the same val images."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench import data
from cgh_bench.core.saved import load_arrays
from cgh_bench.data import ImageSet
from cgh_bench.data.annotations import LEAST_POLYGON, is_number
from cgh_bench.data.ground_truth import SHOWN, Maps, Objects
from cgh_bench.results import Result
from cgh_bench.site import truth
from cgh_bench.site.breakdown import DETECTIONS, SEGMENTATIONS
from cgh_bench.site.pictures import Instance, css_colour, data_uri, draw_classes, draw_instances, thumbnail
from cgh_bench.site.truth import noting
from cgh_bench.tasks.base import PICTURES

Named = Sequence[tuple[str, Result]]
"""Runs of one task, each with the label of its row."""
QUERIES = 5
NEIGHBOURS = "neighbours.npz"
SHOWN_NEIGHBOURS = 8
LEAST_SCORE = 0.3
"""Detections with a lower score are not shown."""
SIDE = 128
"""Pixels of the picture of a query or a neighbour, at most."""
WIDTH = 384  # pixels: sharp at 192 CSS pixels on a dense screen
WIDEST = 768  # images of street scenes are wider
TRUTH = "Ground truth"


@dataclass(frozen=True)
class Neighbour:
    """One train image."""

    picture: str
    """Data URI."""
    label: str
    right: bool
    """Whether it is of the query's class."""
    similarity: float
    """Cosine."""


@dataclass(frozen=True)
class Answer:
    """The nearest neighbours of a query by one backbone."""

    row: str
    neighbours: tuple[Neighbour, ...]

    @property
    def right(self) -> int:
        """The number of neighbours of the query's class."""
        return sum(neighbour.right for neighbour in self.neighbours)


@dataclass(frozen=True)
class Query:
    """One val image and its neighbours by each backbone."""

    picture: str
    label: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Picture:
    """One drawn image."""

    row: str
    """The row of the table, or `TRUTH`."""
    picture: str
    """Data URI."""
    content: str
    """What is drawn, in words."""


Scene = tuple[Picture, ...]
"""One val image, drawn for the ground truth and for every row."""


@dataclass(frozen=True)
class Sheet:
    """A picture that a task drew itself: depth maps, patches as colours, matches, rankings."""

    task: str
    row: str
    name: str
    picture: str
    """Data URI."""
    size: tuple[int, int]
    """Width and height."""


@dataclass(frozen=True)
class Gallery:
    """Pictures, ready to be shown."""

    queries: Sequence[Query] = ()
    detections: Sequence[Scene] = ()
    segmentations: Sequence[Scene] = ()
    classes: Sequence[tuple[str, str]] = ()
    """Name and CSS colour of each class of the segmentations."""
    sheets: Sequence[Sheet] = ()
    least_score: float = LEAST_SCORE


def gallery(by_task: Sequence[Named], root: Path, work: Path, notes: list[str]) -> Gallery:
    """What can be drawn from the files that runs left in their folders below `root`.

    Args:
        by_task: the runs of each task; each kind of picture is of the first task that left such files, but for
            `sheets`, which are of all.
        root: folder of the result store.
        work: the workspace; the embedded datasets are in its cache, the others in `$CGH_DATA`.
        notes: what cannot be drawn, and why, is appended.
    """

    def first(left: Callable[[Path], bool]) -> Named:
        return next((runs for runs in by_task if any(left(root / run.work) for _, run in runs)), ())

    asked = first(lambda folder: (folder / NEIGHBOURS).exists())
    detected = first(lambda folder: (folder / DETECTIONS).exists() or truth.left_instances(folder))
    segmented = first(lambda folder: (folder / SEGMENTATIONS).exists() and not truth.left_instances(folder))
    drawn = sheets(by_task, root, notes)
    if any(by_task) and not (asked or detected or segmented or drawn):
        notes.append("No pictures: the run folders are not beside the results.")
    objects = truth.objects(detected[0][1], work, notes) if detected else None
    maps = truth.maps(segmented[0][1], root / segmented[0][1].work, work, notes) if segmented else None
    return Gallery(
        queries(asked, root, notes) if asked else (),
        detections(objects, detected, root, notes) if objects else (),
        segmentations(maps, segmented, root, notes) if maps else (),
        [(name, css_colour(index)) for index, name in enumerate(maps.classes)] if maps else (),
        drawn,
    )


def sheets(by_task: Sequence[Named], root: Path, notes: list[str]) -> list[Sheet]:
    """What tasks drew of what they found, task by task and row by row; what cannot be read is noted."""
    found = []
    for row, run in (named for runs in by_task for named in runs):
        for path in sorted((root / run.work / PICTURES).glob("*.png")):
            with noting(notes, f"{row}: {PICTURES}/{path.name} of {run.task} is damaged"):
                image = Image.open(path).convert("RGB")
                image.thumbnail((WIDEST, 2 * WIDEST))
                found.append(Sheet(run.task, row, path.stem, data_uri(image), image.size))
    return found


def queries(runs: Named, root: Path, notes: list[str]) -> list[Query]:
    """The neighbours found by one run per row, all of the same task; what cannot be shown is noted.

    The queries are the first val image of classes spread evenly over the list of classes: independent of any result.
    """
    found: list[tuple[str, dict[str, NDArray[Any]]]] = []
    for row, result in runs:
        with noting(notes, f"{row}: no nearest neighbours; {NEIGHBOURS} of that run is missing or damaged"):
            arrays = load_arrays(root / result.work / NEIGHBOURS)
            found.append((row, {name: arrays[name] for name in ("row", "similarity")}))
    if not found:
        return []
    name = str(runs[0][1].config.get("data"))
    with noting(notes, f"No nearest neighbours: {name} cannot be read, or has changed since the run"):
        train, val = data.load(name, "train"), data.load(name, "val")
        return [_query(index, found, train, val) for index in _chosen(val)]
    return []


def _chosen(val: ImageSet) -> list[int]:
    classes = np.unique(val.labels)
    some = classes[np.linspace(0, len(classes) - 1, min(QUERIES, len(classes))).round().astype(int)]
    return [int(np.flatnonzero(val.labels == label)[0]) for label in some]


def _query(index: int, found: Sequence[tuple[str, dict[str, NDArray[Any]]]], train: ImageSet, val: ImageSet) -> Query:
    label = int(val.labels[index])
    answers = []
    for row, arrays in found:
        rows, similarities = (arrays[name][index, :SHOWN_NEIGHBOURS].tolist() for name in ("row", "similarity"))
        neighbours = [
            Neighbour(thumbnail(train, i, SIDE), train.classes[train.labels[i]], train.labels[i] == label, similarity)
            for i, similarity in zip(rows, similarities, strict=True)
        ]
        answers.append(Answer(row, tuple(neighbours)))
    return Query(thumbnail(val, index, SIDE), val.classes[label], tuple(answers))


def detections(objects: Objects, runs: Named, root: Path, notes: list[str]) -> list[Scene]:
    """The instances that each row's run found with at least `LEAST_SCORE`; what cannot be shown is noted."""

    def draw(row: str, path: Path | None) -> list[Picture]:
        lines = objects.annotations if path is None else _lines(path) if path.is_file() else _instances(path, objects)
        return [_detected(objects, entry, row, lines) for entry in objects.shown]

    folders = [(row, root / result.work) for row, result in runs]
    names = [SEGMENTATIONS if truth.left_instances(folder) else DETECTIONS for _, folder in folders]
    found = [(row, folder / name) for (row, folder), name in zip(folders, names, strict=True)]
    return _scenes(found, draw, "detections", notes)


def segmentations(maps: Maps, runs: Named, root: Path, notes: list[str]) -> list[Scene]:
    """The class maps that each row's run predicted for the first val images; what cannot be shown is noted."""

    def draw(row: str, path: Path | None) -> list[Picture]:
        shown = maps.pairs[:SHOWN]
        return [_segmented(maps, image, row, path / f"{image.stem}.png" if path else true) for image, true in shown]

    return _scenes([(row, root / result.work / SEGMENTATIONS) for row, result in runs], draw, "segmentations", notes)


def _scenes(
    predicted: Sequence[tuple[str, Path]],
    draw: Callable[[str, Path | None], list[Picture]],
    kind: str,
    notes: list[str],
) -> list[Scene]:
    """One per image: what `draw` makes of the ground truth (no path) and of what each row `predicted`.

    What cannot be drawn is left out: a row, or everything if the ground truth cannot be drawn or no row is left.
    """
    columns: list[list[Picture]] = []
    with noting(notes, f"No {kind}: a file of the dataset is damaged"):
        columns.append(draw(TRUTH, None))
    for row, path in predicted if columns else ():
        with noting(notes, f"{row}: no {kind}; {path.name} of that run is missing or damaged"):
            columns.append(draw(row, path))
    return list(zip(*columns, strict=True)) if len(columns) > 1 else []


def _lines(path: Path) -> list[dict[str, Any]]:
    """Detections in COCO's results format."""
    lines = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(lines, list):
        raise TypeError(f"{path.name} is not a list")
    return lines


def _instances(folder: Path, objects: Objects) -> Sequence[dict[str, Any]]:
    """What is sure enough of Cityscapes' results for the images that are shown, in COCO's results format."""
    from pycocotools import mask

    found = []
    for entry in objects.shown:
        listed = folder / f"{Path(entry['file_name']).stem}_pred.txt"
        for name, label, score in map(str.split, listed.read_text(encoding="utf-8").splitlines()):
            if float(score) < LEAST_SCORE:
                continue
            values = np.asfortranarray(np.asarray(Image.open(folder / name)) > 0, dtype=np.uint8)
            run_lengths = mask.encode(values)
            line = {"image_id": entry["id"], "category_id": int(label), "score": float(score)}
            found.append(line | {"bbox": mask.toBbox(run_lengths).tolist(), "segmentation": run_lengths})
    return found


def _detected(objects: Objects, entry: dict[str, Any], row: str, lines: Sequence[dict[str, Any]]) -> Picture:
    image = Image.open(objects.images / entry["file_name"])
    instances = [
        _instance(objects, line, image.size)
        for line in lines
        if line["image_id"] == entry["id"] and line.get("score", 1.0) >= LEAST_SCORE
    ]
    drawn = draw_instances(image, instances, objects.classes, WIDTH)
    words = [
        objects.classes[i.label] + ("" if i.score is None else f" {i.score:.2f}")
        for i in sorted(instances, key=lambda i: -(i.score or 0))
    ]
    return Picture(row, _uri(drawn), ", ".join(words) or f"nothing with a score of {LEAST_SCORE} or more")


def _uri(drawn: Image.Image) -> str:
    drawn.thumbnail((WIDEST, WIDEST))
    return data_uri(drawn)


def _instance(objects: Objects, line: dict[str, Any], size: tuple[int, int]) -> Instance:
    segmentation = line.get("segmentation")
    mask = _decode(segmentation, size) if segmentation else None
    points = line.get("keypoints") or []
    seen = tuple((x, y) for x, y, v in zip(points[::3], points[1::3], points[2::3], strict=True) if v > 0)
    return Instance(objects.label(line), tuple(line["bbox"]), mask, line.get("score"), seen)


def _decode(segmentation: dict[str, Any] | list[list[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (H, W) of COCO polygons or run lengths, compressed or not, of an image of `size` (width, height)."""
    from pycocotools import mask

    if isinstance(segmentation, list):
        if not all(len(polygon) >= LEAST_POLYGON and all(map(is_number, polygon)) for polygon in segmentation):
            raise ValueError("a polygon of fewer than three points")
        return np.asarray(mask.decode(mask.merge(mask.frPyObjects(segmentation, *size[::-1]))), dtype=np.bool_)
    if tuple(segmentation["size"]) != size[::-1]:
        raise ValueError(f"a mask of {segmentation['size']} for an image of {list(size[::-1])}")
    if isinstance(segmentation["counts"], list):
        segmentation = mask.frPyObjects(segmentation, *segmentation["size"])
    return np.asarray(mask.decode(segmentation), dtype=np.bool_)


def _segmented(maps: Maps, image: Path, row: str, path: Path) -> Picture:
    classes = maps.drawn(path)
    shares = [(float((classes == 1 + label).mean()), name) for label, name in enumerate(maps.classes)]
    words = [f"{name} {share:.0%}" for share, name in sorted(shares, reverse=True) if share >= 0.005]
    drawn = draw_classes(Image.open(image), classes, WIDTH)
    return Picture(row, _uri(drawn), ", ".join(words) or "background only")
