"""Two backbones side by side: what it takes to tell a difference from the spread of runs, and from that of images."""

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench.report.significance import CONFIDENCE, paired_interval
from cgh_bench.site import classification
from cgh_bench.site.boards import Board, Subject

STEPS = 1000
"""Of 1 / degrees of freedom from 0 to 1, at which Student's quantile is given: between them it is all but straight."""
MOST_PAIRED = 40
"""Backbones of a protocol that are paired image by image, the first in the store: pairs grow with the square."""
METRIC = "top1"


def context(subjects: Sequence[Subject], boards: Sequence[Board], root: Path) -> dict[str, Any]:
    """The values of every subject, Student's quantiles for Welch's intervals, and the intervals over images."""
    from scipy.stats import t

    tail = (1 + CONFIDENCE) / 2
    return {
        "student": [round(float(t.ppf(tail, STEPS / step if step else math.inf)), 5) for step in range(STEPS + 1)],
        "boards": {
            board.id: {"title": board.title, "metrics": {m.name: m.higher_is_better for m in board.metrics}}
            for board in boards
            if board.ours
        },
        "subjects": [
            {
                "label": subject.label,
                "cells": [
                    {"board": board, "metric": metric, "values": list(cell.values), "replicate": cell.replicate}
                    for (board, metric), cell in subject.cells.items()
                ],
            }
            for subject in subjects
            if subject.cells
        ],
        "paired": [pair for board in boards if board.ours for pair in _paired(board, subjects, root)],
    }


def _paired(board: Board, subjects: Sequence[Subject], root: Path) -> list[dict[str, Any]]:
    """Every two subjects whose runs left the class given to each of the same val images."""
    measured = [subject for subject in subjects if (board.id, METRIC) in subject.cells][:MOST_PAIRED]
    found = [(subject.label, rates) for subject in measured if (rates := _rates(board, subject, root)) is not None]
    pairs = []
    for (first, a), (second, b) in combinations(found, 2):
        if len(a) == len(b):
            interval = [round(100 * side, 3) for side in paired_interval(a - b)]
            pair = {"board": board.id, "metric": METRIC, "first": first, "second": second}
            pairs.append({**pair, "interval": interval, "images": len(a)})
    return pairs


def _rates(board: Board, subject: Subject, root: Path) -> NDArray[np.float64] | None:
    """How often each val image (N,) was classified rightly by the subject's runs; None where one left nothing."""
    outcomes = [classification.read(run, root) for run in subject.cells[board.id, METRIC].runs]
    if not outcomes or any(outcome is None for outcome in outcomes):
        return None
    rates: NDArray[np.float64] = np.mean([outcome.right for outcome in outcomes if outcome is not None], axis=0)
    return rates
