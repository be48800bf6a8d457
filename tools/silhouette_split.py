"""Write which split each silhouette of the embedded images is in: `cgh_bench/data/demo/silhouette_split.txt`.

    python tools/silhouette_split.py

Copies are dropped, and drawings that nearly coincide stay in one split. A test holds the file against this.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cgh_bench.data.demo.silhouettes import SIDE, SPLIT_FILE, SPLITS, Labels, Pixels, read

# Two silhouettes whose masks overlap at least so much (intersection over union, one of them maybe mirrored or moved
# by a pixel) count as one drawing and stay in one split.
NEAR_DUPLICATE_IOU = 0.9
VAL_PER_CLASS = 200
SPLIT_SEED = 20201
COLUMNS = 100


def split() -> str:
    """The mark of each image of the package, `COLUMNS` a line."""
    images, labels = read()
    rows = first_of_equal(images)
    in_val = choose_val(labels[rows], near_duplicate_groups(images[rows], labels[rows]))
    marks = np.full(len(images), "-")
    marks[rows] = np.where(in_val, SPLITS["val"], SPLITS["train"])
    return "".join(f"{''.join(line)}\n" for line in marks.reshape(-1, COLUMNS))


def near_duplicate_groups(images: Pixels, labels: Labels) -> Labels:
    """(N,) group of each silhouette: those of a class that nearly coincide, directly or in a chain, share one."""
    groups = np.arange(len(images))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        for first, second in _near_pairs(images[members] > 127):
            old, new = groups[members[second]], groups[members[first]]
            groups[groups == old] = new
    return groups


def _near_pairs(masks: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """All pairs of (n, 28, 28) masks that overlap by at least `NEAR_DUPLICATE_IOU`, as indices."""
    areas = masks.sum((1, 2))
    order = np.argsort(areas, kind="stable")
    for rows in np.split(order, range(64, len(order), 64)):
        # Masks of areas further apart cannot overlap so much.
        smallest, largest = areas[rows[0]], areas[rows[-1]] / NEAR_DUPLICATE_IOU
        columns = order[(areas[order] >= smallest) & (areas[order] <= largest)]
        first, second = np.nonzero(_overlap(masks[rows], masks[columns]) >= NEAR_DUPLICATE_IOU)
        yield from zip(rows[first].tolist(), columns[second].tolist(), strict=True)


def _overlap(some: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(n, m) best intersection over union of masks (n, 28, 28) with (m, 28, 28), mirrored or moved by a pixel."""
    flat = some.reshape(len(some), -1).astype(np.float32)  # counts up to 784: exact in float32
    best = np.zeros((len(some), len(others)), dtype=np.float32)
    for candidates, down, right in itertools.product((others, others[:, :, ::-1]), range(3), range(3)):
        padded = np.pad(candidates, ((0, 0), (1, 1), (1, 1)))[:, down : down + SIDE, right : right + SIDE]
        moved = padded.reshape(len(others), -1).astype(np.float32)
        shared = flat @ moved.T
        np.maximum(best, shared / (flat.sum(1)[:, None] + moved.sum(1) - shared), out=best)
    return best


def choose_val(labels: Labels, groups: Labels) -> NDArray[np.bool_]:
    """(N,) bool: `VAL_PER_CLASS` silhouettes of each class, whole groups, in a fixed random order."""
    draws = np.random.Generator(np.random.PCG64(SPLIT_SEED)).random(len(labels))
    in_val = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        room = VAL_PER_CLASS
        for index in members[np.argsort(draws[members], kind="stable")]:
            group = np.flatnonzero(groups == groups[index])
            if not in_val[index] and len(group) <= room:
                in_val[group] = True
                room -= len(group)
        assert room == 0, f"class {label} has no {VAL_PER_CLASS} silhouettes to hold out"
    return in_val


def first_of_equal(images: Pixels) -> Labels:
    """The row numbers, ascending, of the first of each set of equal images."""
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    return np.sort(first)


if __name__ == "__main__":
    SPLIT_FILE.write_text(split(), encoding="ascii")
