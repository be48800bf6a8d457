"""The images that only one of two backbones has right: counted by class, as a table, and as pictures."""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing, write_text
from cgh_bench.data import ImageSet, data_root, load_pair
from cgh_bench.frozen.drawing import thumbnails
from cgh_bench.outcomes.classification import Classification
from cgh_bench.report.sides import Side

TILE, IN_A_ROW, ON_A_SHEET = 96, 8, 40
"""Pixels of a picture on a sheet of flips, and how many there are at most in a row and on the sheet."""


def flips(first: Side, second: Side) -> tuple[tuple[str, int, int], ...]:
    """For each class: images that only the first has right, and only the second; most flips first."""
    masks = flipped(first, second)
    if masks is None:
        return ()
    kept = first.kept[0]
    assert isinstance(kept, Classification)
    counts = [np.bincount(kept.target[mask], minlength=len(kept.classes)) for mask in masks]
    lines = [(name, int(a), int(b)) for name, a, b in zip(kept.classes, *counts, strict=True) if a or b]
    return tuple(sorted(lines, key=lambda line: -line[1] - line[2]))


def flipped(first: Side, second: Side) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Which images (N,) only the first has right, and only the second, by the first run of each; None for others."""
    one, other = first.kept[0], second.kept[0]
    if not (isinstance(one, Classification) and isinstance(other, Classification)):
        return None
    a, b = (kept.rank[:, 0] < 1 for kept in (one, other))
    return a & ~b, b & ~a


def write_flips(first: Side, second: Side, folder: Path) -> list[Path]:
    """The images that only one has right: all as `flips-TASK.csv`, the first of each side as pictures.

    Returns what was written; there are no pictures of a dataset that is not there any more.

    Raises:
        UserError: the task gives no single class to each image.
    """
    masks = flipped(first, second)
    if masks is None:
        raise UserError(f"{first.runs[0].task} does not classify images, so there is nothing to write")
    one, other = first.kept[0], second.kept[0]
    assert isinstance(one, Classification) and isinstance(other, Classification)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", "image", "target", first.name, second.name])
    for index in np.flatnonzero(masks[0] | masks[1]):
        given = [kept.classes[kept.predicted[index, 0]] for kept in (one, other)]
        writer.writerow([first.runs[0].task, one.images.ids[index], one.classes[one.target[index]], *given])
    task, config = first.runs[0].task, first.runs[0].config
    table = folder / f"flips-{task}.csv"
    write_text(table, out.getvalue())
    try:
        pair = load_pair(str(config["data"]), data_root(), None, float(config.get("val_split", 0.0)))
    except UserError:
        return [table]
    written = [table]
    for images in (part for part in (pair.train, pair.val) if part.order == one.images.order):
        for name, mask in zip(("first", "second"), masks, strict=True):
            if mask.any():
                written.append(folder / f"only-the-{name}-{task}.png")
                write_sheet(images, np.flatnonzero(mask)[:ON_A_SHEET], written[-1])
    return written


def write_sheet(images: ImageSet, rows: NDArray[np.int64], path: Path) -> None:
    """Some of the images side by side, as a PNG."""
    sheet = thumbnails(images, rows.tolist(), TILE, min(len(rows), IN_A_ROW))
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")
