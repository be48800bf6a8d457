"""The comparison of two backbones, all statistics done: over trainings, over images, and which images flip."""

import base64
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench import data
from cgh_bench.core.errors import UserError
from cgh_bench.outcomes.classification import Classification
from cgh_bench.report.significance import paired_interval, welch_half_widths
from cgh_bench.site.boards import Board, Subject
from cgh_bench.site.breakdown import classification
from cgh_bench.site.pictures import thumbnail
from cgh_bench.tasks.base import Metric, metric_label

MOST_PAIRED = 40
"""The number of backbones per protocol, the first in the store, whose pairs are compared image by image at most."""
PAIRED_METRIC = "top1"
MOST_PICTURED = 48
"""The number of images per dataset that can be shown: those on which the backbones agree least."""
SIDE = 72  # pixels of a picture


def comparison(subjects: Sequence[Subject], boards: Sequence[Board], root: Path, work: Path) -> dict[str, Any]:
    """What the page that compares two backbones shows.

    For each metric, `subjects` are those that have it, by their place in the list of all; `means`, `texts` and
    `replicates` are theirs. `pairs[j][i]` with i < j is half the width of Welch's interval of the difference between
    the i-th and the j-th of them, in thousandths, or null. `images` are intervals over images. `answers` are for each
    protocol that classifies: see `_answers`; `pictures` those of each order of images.
    """
    compared = [subject for subject in subjects if subject.cells]
    pictures: dict[str, dict[int, str]] = {}
    answers = [_answers(board, compared, root, work, pictures) for board in boards if board.ours]
    return {
        "answers": [each for each in answers if each],
        "pictures": pictures,
        "subjects": [subject.label for subject in compared],
        "metrics": [
            _compared(board, metric, compared, root) for board in boards for metric in board.metrics if board.ours
        ],
    }


def _compared(board: Board, metric: Metric, subjects: Sequence[Subject], root: Path) -> dict[str, Any]:
    mine = [(number, cell) for number, s in enumerate(subjects) if (cell := s.cells.get((board.id, metric.name)))]
    halves = welch_half_widths([cell.values for _, cell in mine])
    replicates = np.array([cell.replicate for _, cell in mine])
    halves[replicates[:, None] != replicates] = math.nan
    measured = [subjects[number] for number, _ in mine]
    return {
        "board": board.title,
        "metric": metric_label(metric.name),
        "higher": metric.higher_is_better,
        "subjects": [number for number, _ in mine],
        "means": [round(cell.mean, 4) for _, cell in mine],
        "texts": [cell.text(2) for _, cell in mine],
        "replicates": [cell.replicate if cell.n > 1 else "" for _, cell in mine],
        "pairs": [[_thousandths(half) for half in line[:j]] for j, line in enumerate(halves.tolist())],
        "images": _paired(board, measured, root) if metric.name == PAIRED_METRIC else [],
    }


def _thousandths(half: float) -> int | None:
    """Half an interval's width in thousandths, short because a site of 250 backbones has half a million of them."""
    return None if math.isnan(half) else round(1000 * half)


def _answers(
    board: Board, subjects: Sequence[Subject], root: Path, work: Path, pictures: dict[str, dict[int, str]]
) -> dict[str, Any] | None:
    """Who is right on which image, by the first run of each backbone; None if fewer than two left such answers.

    `target` is the class of each image (N,) and `right` a bit for each image, both as bytes in base64. `said` are the
    classes that each backbone gave to the images with a picture; these are put into `pictures`.
    """
    kept: dict[int, Classification] = {}
    for place, subject in enumerate(subjects):
        run = subject.first_runs.get(board.id)
        if run and len(kept) < MOST_PAIRED and (outcome := classification(run, root, [])):
            kept[place] = outcome
    first = next(iter(kept.values()), None)
    same = {place: each for place, each in kept.items() if first and each.images.order == first.images.order}
    if first is None or len(same) < 2:
        return None
    right = np.array([each.rank[:, 0] < 1 for each in same.values()])
    order = first.images.order
    if order not in pictures:
        pictures[order] = _pictures(board, order, right, work)
    shown = list(pictures[order])
    return {
        "board": board.title,
        "order": order,
        "classes": first.classes,
        "target": _encoded(first.target.astype("<u2")),
        "subjects": list(same),
        "right": [_encoded(np.packbits(line, bitorder="little")) for line in right],
        "said": [each.predicted[shown, 0].tolist() for each in same.values()],
    }


def _encoded(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _pictures(board: Board, order: str, right: NDArray[np.bool_], work: Path) -> dict[int, str]:
    """Small pictures of the images, by their number, on which as many as possible of (M, N) are right and wrong."""
    contested = np.minimum(right.sum(axis=0), (~right).sum(axis=0))
    anyhow = np.random.default_rng(0).permutation(len(contested))  # not the first classes only
    rows = anyhow[np.argsort(-contested[anyhow], kind="stable")][:MOST_PICTURED]
    try:
        images = data.load(str(getattr(board.task, "data", "")), "val", cache=work / "cache")
    except UserError:
        return {}
    if images.order != order:
        return {}
    return {row: thumbnail(images, row, SIDE) for row in sorted(rows[contested[rows] > 0].tolist())}


def _paired(board: Board, measured: Sequence[Subject], root: Path) -> list[dict[str, Any]]:
    """The intervals over images of every two subjects whose runs left a class for each of the same val images."""
    rates = [(place, _rates(board, subject, root)) for place, subject in enumerate(measured[:MOST_PAIRED])]
    found = [(place, rate) for place, rate in rates if rate is not None]
    pairs = []
    for (first, a), (second, b) in combinations(found, 2):
        if len(a) == len(b):
            _, low, high = (round(100 * side, 3) for side in paired_interval(a - b))
            pairs.append({"first": first, "second": second, "low": low, "high": high, "images": len(a)})
    return pairs


def _rates(board: Board, subject: Subject, root: Path) -> NDArray[np.float64] | None:
    """How often each val image (N,) was classified correctly by the subject's runs; None if one left no predictions."""
    runs = subject.cells[board.id, PAIRED_METRIC].runs
    found = [classification(run, root, []) for run in runs]
    outcomes = [(outcome.rank < 1).mean(axis=1) for outcome in found if outcome is not None]
    if len(outcomes) < len(runs) or len({len(outcome) for outcome in outcomes}) != 1:
        return None
    return np.mean(outcomes, axis=0, dtype=np.float64)
