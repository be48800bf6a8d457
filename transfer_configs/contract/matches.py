"""Each detection as a dataset's own metric judged it: `matches.npz` in a run's folder, for comparisons of two runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench.transfer_configs.contract.records import replacing

FILE = "matches.npz"

Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """The D detections of one class, the surest first, at T IoU thresholds."""

    image: Sequence[int]
    """(D,) places in the list of images."""
    score: Sequence[float]
    """(D,)"""
    found: Marks
    """(D, T) whether an object was found."""
    ignored: Marks
    """(D, T) whether it counts neither way."""
    objects: Sequence[int]
    """(N,) how many there are to find in each image."""


def write(work: Path, images: Sequence[str], by_class: Mapping[str, Judged]) -> None:
    """Write `matches.npz` to the folder `work`: arrays as in `outcomes.detection.Matches`, `images`, `classes`."""
    judged = list(by_class.values())
    with replacing(work / FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            images=np.array(images, np.str_),
            classes=np.array(list(by_class), np.str_),
            image=np.concatenate([np.asarray(each.image, np.int64) for each in judged]),
            label=np.repeat(np.arange(len(judged)), [len(each.score) for each in judged]),
            score=np.concatenate([np.asarray(each.score, np.float64) for each in judged]),
            found=np.concatenate([each.found for each in judged]),
            ignored=np.concatenate([each.ignored for each in judged]),
            objects=np.array([each.objects for each in judged], np.int64).T,
        )


def of_voc(
    detections: Sequence[tuple[int, float, NDArray[Any]]],
    objects: Sequence[tuple[NDArray[Any], Marks]],
    thresholds: Sequence[float],
) -> Judged:
    """The detections of one class as VOC's development kit judges them.

    An object is found by the surest detection whose IoU with it is above the threshold and greatest among the objects.

    Args:
        detections: image, score and box (left, top, right, bottom; the last pixel is inside), the surest first.
        objects: of each image the boxes (m, 4) and which of them are difficult, (m,).
        thresholds: T of them.
    """
    found = np.zeros((len(detections), len(thresholds)), bool)
    ignored = found.copy()
    taken: set[tuple[int, int, int]] = set()
    for row, (image, _, box) in enumerate(detections):
        boxes, difficult = objects[image]
        if not len(boxes):
            continue
        sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]) + 1
        both = sides.clip(min=0).prod(axis=1)
        area, areas = (box[2:] - box[:2] + 1).prod(), (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
        overlaps = both / (area + areas - both)
        best = int(overlaps.argmax())
        for column, threshold in enumerate(thresholds):
            if overlaps[best] > threshold:
                ignored[row, column] = difficult[best]
                found[row, column] = not difficult[best] and (image, best, column) not in taken
                taken.add((image, best, column))
    easy = [int((~difficult).sum()) for _, difficult in objects]
    return Judged([image for image, *_ in detections], [score for _, score, _ in detections], found, ignored, easy)
