"""What detection and segmentation runs predicted, drawn on the same few val images beside the ground truth."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.results import Result
from cgh_bench.site.pictures import Instance, data_uri, draw_classes, draw_instances
from cgh_bench.site.truth import DAMAGED, SHOWN, Maps, Objects, why

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

    def draw(row: str, path: Path | None) -> list[Picture]:
        lines = _lines(path) if path else truth.annotations
        return [_detected(truth, entry, row, lines) for entry in truth.shown]

    return _scenes([(row, root / result.work / DETECTIONS) for row, result in runs], draw, "detections", notes)


def segmentations(truth: Maps, runs: Sequence[tuple[str, Result]], root: Path, notes: list[str]) -> list[Scene]:
    """The class maps that each row's run predicted, of the first val images; what cannot be shown is in `notes`."""

    def draw(row: str, path: Path | None) -> list[Picture]:
        shown = truth.pairs[:SHOWN]
        return [_segmented(truth, image, row, path / f"{image.stem}.png" if path else true) for image, true in shown]

    return _scenes([(row, root / result.work / SEGMENTATIONS) for row, result in runs], draw, "segmentations", notes)


def _scenes(
    predicted: Sequence[tuple[str, Path]],
    draw: Callable[[str, Path | None], list[Picture]],
    kind: str,
    notes: list[str],
) -> list[Scene]:
    """One for each image: what `draw` makes of the truth (no path) and of what each row `predicted`.

    What cannot be drawn is left out: a row, or all where the truth cannot be or nothing is left beside it.
    """
    columns: list[list[Picture]] = []
    for row, path in [(TRUTH, None), *predicted]:
        try:
            columns.append(draw(row, path))
        except DAMAGED as error:
            what = f"{path.name} of that run is missing or damaged" if path else "a file of the data set is damaged"
            notes.append(f"{row}: no {kind}, {what} ({why(error)}).")
            if path is None:
                return []
    return [Scene(pictures) for pictures in zip(*columns, strict=True)] if len(columns) > 1 else []


def _lines(path: Path) -> list[dict[str, Any]]:
    """Detections in COCO's results format."""
    lines = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(lines, list):
        raise TypeError(f"{path} holds no list")
    return lines


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


def _segmented(truth: Maps, image: Path, row: str, path: Path) -> Picture:
    classes = truth.drawn(path)
    shares = [(float((classes == 1 + label).mean()), name) for label, name in enumerate(truth.classes)]
    words = [f"{name} {share:.0%}" for share, name in sorted(shares, reverse=True) if share >= 0.005]
    drawn = draw_classes(Image.open(image), classes, WIDTH)
    return Picture(row, _uri(drawn), ", ".join(words) or "background only")
