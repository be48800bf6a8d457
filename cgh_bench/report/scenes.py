"""What detection and segmentation runs predicted, drawn on the same few val images beside the ground truth."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.report.pictures import Instance, data_uri, draw_classes, draw_instances
from cgh_bench.results import Result

SHOWN = 4
LEAST_SCORE = 0.3
WIDTH = 384  # pixels: sharp at 192 CSS pixels on a dense screen
TRUTH = "Ground truth"
DETECTIONS = "predictions.json"
SEGMENTATIONS = "predictions"


@dataclass(frozen=True)
class Picture:
    """One drawn image."""

    row: str
    """The row of the table, or `TRUTH`."""
    picture: str
    """Data URI."""
    content: str
    """What is drawn, in words."""


@dataclass(frozen=True)
class Scene:
    """One val image, drawn for the truth and for every row."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Truth:
    """The val split of a data set in COCO format with semantic maps."""

    folder: Path
    """With `images/` and `masks/`."""
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: tuple[dict[str, Any], ...]
    """The entries of the few images that are shown."""
    annotations: tuple[dict[str, Any], ...]


def read_truth(folder: Path) -> Truth:
    """The val split below `folder`: `annotations.json`, `images/`, `masks/`.

    Of its images, the first with one object, the first with two, and so on: chosen by no result.
    """
    coco = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    categories = sorted(coco["categories"], key=lambda category: category["id"])
    objects = Counter(annotation["image_id"] for annotation in coco["annotations"])
    first: dict[int, dict[str, Any]] = {}
    for image in coco["images"]:
        first.setdefault(objects[image["id"]], image)
    first.pop(0, None)
    return Truth(
        folder,
        tuple(category["name"] for category in categories),
        tuple(category["id"] for category in categories),
        tuple(first[count] for count in sorted(first)[:SHOWN]),
        tuple(coco["annotations"]),
    )


def detections(truth: Truth, runs: Sequence[tuple[str, Result]], root: Path, notes: list[str]) -> list[Scene]:
    """The instances that each row's run found with at least `LEAST_SCORE`; what cannot be shown is said in `notes`."""
    columns: list[tuple[str, Sequence[dict[str, Any]]]] = [(TRUTH, truth.annotations)]
    for row, result in runs:
        try:
            columns.append((row, json.loads((root / result.work / DETECTIONS).read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            notes.append(f"{row}: no detections, {DETECTIONS} of that run is missing or broken ({error}).")
    if len(columns) == 1:
        return []
    return [Scene(tuple(_detected(truth, entry, *column) for column in columns)) for entry in truth.images]


def _detected(truth: Truth, entry: dict[str, Any], row: str, lines: Sequence[dict[str, Any]]) -> Picture:
    instances = [
        _instance(truth, line)
        for line in lines
        if line["image_id"] == entry["id"] and line.get("score", 1.0) >= LEAST_SCORE
    ]
    image = Image.open(truth.folder / "images" / entry["file_name"])
    drawn = draw_instances(image, instances, truth.classes, WIDTH)
    words = [
        truth.classes[i.label] + ("" if i.score is None else f" {i.score:.2f}")
        for i in sorted(instances, key=lambda i: -(i.score or 0))
    ]
    return Picture(row, data_uri(drawn), ", ".join(words) or f"nothing with a score of {LEAST_SCORE} or more")


def _instance(truth: Truth, line: dict[str, Any]) -> Instance:
    segmentation = line.get("segmentation")
    mask = None if segmentation is None else _decode(segmentation)
    return Instance(truth.category_ids.index(line["category_id"]), tuple(line["bbox"]), mask, line.get("score"))


def _decode(segmentation: dict[str, Any]) -> NDArray[np.bool_]:
    """The (H, W) mask of COCO run lengths, compressed or not."""
    from pycocotools import mask

    if isinstance(segmentation["counts"], list):
        segmentation = mask.frPyObjects(segmentation, *segmentation["size"])
    return np.asarray(mask.decode(segmentation), dtype=np.bool_)


def segmentations(truth: Truth, runs: Sequence[tuple[str, Result]], root: Path, notes: list[str]) -> list[Scene]:
    """The class maps that each row's run predicted; what cannot be shown is said in `notes`."""
    usable = []
    for row, result in runs:
        folder = root / result.work / SEGMENTATIONS
        absent = [e["file_name"] for e in truth.images if not (folder / f"{Path(e['file_name']).stem}.png").is_file()]
        if absent:
            notes.append(f"{row}: no segmentations, {SEGMENTATIONS}/ of that run lacks {', '.join(absent)}.")
        else:
            usable.append((row, folder))
    if not usable:
        return []
    columns = [(TRUTH, truth.folder / "masks"), *usable]
    return [Scene(tuple(_segmented(truth, entry, *column) for column in columns)) for entry in truth.images]


def _segmented(truth: Truth, entry: dict[str, Any], row: str, folder: Path) -> Picture:
    classes = np.asarray(Image.open(folder / f"{Path(entry['file_name']).stem}.png"))
    image = Image.open(truth.folder / "images" / entry["file_name"])
    shares = [(float((classes == 1 + label).mean()), name) for label, name in enumerate(truth.classes)]
    words = [f"{name} {share:.0%}" for share, name in sorted(shares, reverse=True) if share >= 0.005]
    return Picture(row, data_uri(draw_classes(image, classes, WIDTH)), ", ".join(words) or "background only")
