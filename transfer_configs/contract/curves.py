"""Precision against recall where a dataset's own metric computes it: kept in a run's folder, for pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench.transfer_configs.contract.records import write_json

RECALLS = np.linspace(0, 1, 101)


def at_recalls(recall: NDArray[Any], precision: NDArray[Any]) -> NDArray[np.float64]:
    """The best precision at each of `RECALLS` or beyond, (101,), of a curve (n,) whose recall rises."""
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return np.asarray(best[np.searchsorted(recall, RECALLS, side="left")], dtype=np.float64)


def write(work: Path, curves: Mapping[float, Sequence[NDArray[np.float64]]]) -> None:
    """Write `curves.json` {IoU: mean over classes}, from the curve of each class that has objects."""
    means = {f"{iou:g}": np.mean(lines, axis=0).round(4).tolist() for iou, lines in curves.items() if lines}
    write_json(work / "curves.json", means)
