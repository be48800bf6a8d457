"""What a classification run predicted, image by image: accuracy by class, and what pairs two runs."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgh_bench import data
from cgh_bench.results import Result
from cgh_bench.site import charts
from cgh_bench.site.charts import Chart

FILES = ("neighbours.npz", "predictions.npz")
"""Either holds `predicted`, the class (N,) given to each val image."""


@dataclass(frozen=True)
class Outcome:
    """The val images and what a run took them for."""

    predicted: NDArray[np.int64]
    """(N,)"""
    truth: NDArray[np.int64]
    """(N,)"""
    classes: Sequence[str]

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,)"""
        same: NDArray[np.bool_] = self.predicted == self.truth
        return same


def read(run: Result, root: Path) -> Outcome | None:
    """What the run left in its folder below `root`; None where it or its data set is no longer there."""
    path = next((file for name in FILES if (file := root / run.work / name).is_file()), None)
    if not run.work or path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            predicted = arrays["predicted"].astype(np.int64)
        val = data.load(str(run.config.get("data")), "val")
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return Outcome(predicted, np.asarray(val.labels), val.classes) if len(predicted) == len(val) else None


def by_class(outcome: Outcome) -> dict[str, float]:
    """Per cent of each class's val images that were classified rightly; classes without any are left out."""
    counts = np.bincount(outcome.truth, minlength=len(outcome.classes))
    hits = np.bincount(outcome.truth, weights=outcome.right, minlength=len(outcome.classes))
    return {name: 100 * float(hits[i] / counts[i]) for i, name in enumerate(outcome.classes) if counts[i]}


def draw(run: Result, root: Path) -> list[Chart]:
    """Accuracy by class."""
    outcome = read(run, root)
    return [charts.class_chart(f"{run.task}: top-1 by class", by_class(outcome))] if outcome else []
