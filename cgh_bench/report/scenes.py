"""What detection and segmentation runs predicted, drawn on the same few val images beside the ground truth."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.report.pictures import Instance, data_uri, draw_classes, draw_instances
from cgh_bench.report.truth import SHOWN, Maps, Objects
from cgh_bench.results import Result

LEAST_SCORE = 0.3
WIDTH = 384  # pixels: sharp at 192 CSS pixels on a dense screen
WIDEST = 768  # images of street scenes are wider
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


def detections(truth: Objects, runs: Sequence[tuple[str, Result]], root: Path, notes: list[str]) -> list[Scene]:
    """The instances that each row's run found with at least `LEAST_SCORE`; what cannot be shown is said in `notes`."""
    columns: list[tuple[str, Sequence[dict[str, Any]]]] = [(TRUTH, truth.annotations)]
    for row, result in runs:
        try:
            columns.append((row, json.loads((root / result.work / DETECTIONS).read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            notes.append(f"{row}: no detections, {DETECTIONS} of that run is missing or broken ({error}).")
    if len(columns) == 1:
        return []
    return [Scene(tuple(_detected(truth, entry, *column) for column in columns)) for entry in truth.shown]


def _detected(truth: Objects, entry: dict[str, Any], row: str, lines: Sequence[dict[str, Any]]) -> Picture:
    instances = [
        _instance(truth, line)
        for line in lines
        if line["image_id"] == entry["id"] and line.get("score", 1.0) >= LEAST_SCORE
    ]
    image = Image.open(truth.images / entry["file_name"])
    drawn = draw_instances(image, instances, truth.classes, WIDTH)
    words = [
        truth.classes[i.label] + ("" if i.score is None else f" {i.score:.2f}")
        for i in sorted(instances, key=lambda i: -(i.score or 0))
    ]
    return Picture(row, _uri(drawn), ", ".join(words) or f"nothing with a score of {LEAST_SCORE} or more")


def _uri(drawn: Image.Image) -> str:
    drawn.thumbnail((WIDEST, WIDEST))
    return data_uri(drawn)


def _instance(truth: Objects, line: dict[str, Any]) -> Instance:
    segmentation = line.get("segmentation")
    mask = None if segmentation is None else _decode(segmentation)
    return Instance(truth.label(line), tuple(line["bbox"]), mask, line.get("score"))


def _decode(segmentation: dict[str, Any]) -> NDArray[np.bool_]:
    """The (H, W) mask of COCO run lengths, compressed or not."""
    from pycocotools import mask

    if isinstance(segmentation["counts"], list):
        segmentation = mask.frPyObjects(segmentation, *segmentation["size"])
    return np.asarray(mask.decode(segmentation), dtype=np.bool_)


def segmentations(truth: Maps, runs: Sequence[tuple[str, Result]], root: Path, notes: list[str]) -> list[Scene]:
    """The class maps that each row's run predicted, of the first val images; what cannot be shown is in `notes`."""
    shown = truth.pairs[:SHOWN]
    columns: list[tuple[str, list[Path]]] = [(TRUTH, [true for _, true in shown])]
    for row, result in runs:
        predicted = [root / result.work / SEGMENTATIONS / f"{image.stem}.png" for image, _ in shown]
        absent = [path.name for path in predicted if not path.is_file()]
        if absent:
            notes.append(f"{row}: no segmentations, {SEGMENTATIONS}/ of that run lacks {', '.join(absent)}.")
        else:
            columns.append((row, predicted))
    if len(columns) == 1:
        return []
    return [
        Scene(tuple(_segmented(truth, image, row, paths[place]) for row, paths in columns))
        for place, (image, _) in enumerate(shown)
    ]


def _segmented(truth: Maps, image: Path, row: str, path: Path) -> Picture:
    classes = truth.drawn(path)
    shares = [(float((classes == 1 + label).mean()), name) for label, name in enumerate(truth.classes)]
    words = [f"{name} {share:.0%}" for share, name in sorted(shares, reverse=True) if share >= 0.005]
    drawn = draw_classes(Image.open(image), classes, WIDTH)
    return Picture(row, _uri(drawn), ", ".join(words) or "background only")
