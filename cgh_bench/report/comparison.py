"""Which of two or more backbones is better on the same images, by how much, and how certain that is.

There are two separate questions. Would other images of the same kind give the same answer for these weights? Per-image
differences answer it: intervals by resampling images (for AP and mIoU with all their objects), exact p-values if images
are right or wrong. Would other training runs give the same answer? Only several runs can tell: Welch's interval over
seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgh_bench import results
from cgh_bench.outcomes.classification import WORST_GROUP
from cgh_bench.report.flips import flips
from cgh_bench.report.resampling import LEAST_IMAGES, percentiles, resampled, sign_flips, tail
from cgh_bench.report.sides import Side, higher_is_better, main_metric, require_same_images, sides
from cgh_bench.report.significance import CONFIDENCE, paired_interval, welch_half_widths
from cgh_bench.workspace import Workspace

POWER = 0.8
EXPLANATION = (
    "Paired: same images, these weights; the interval covers the choice of images. Over seeds: Welch's interval covers "
    "variation between training runs. Claims about two weight files need the first, claims about methods the second."
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The comparison of two backbones in one metric of one task; differences are first minus second, in its unit."""

    task: str
    metric: str
    names: tuple[str, str]
    values: tuple[float, float]
    """The mean over the runs of each."""
    interval: tuple[float, float] | None
    """The interval of the difference, over images; None if there are too few."""
    p: float | None
    """The two-sided p-value over images; `holm` corrects it for the number of tasks."""
    test: str
    """The test behind `p`."""
    images: int
    spread: float
    """The standard deviation of the difference of one image."""
    seeds: tuple[int, int]
    """The number of training runs of each."""
    over_seeds: tuple[float, float] | None
    """Welch's interval of the difference over training runs; None if either has only one."""
    higher_is_better: bool
    flips: tuple[tuple[str, int, int], ...]
    """For each class: the number of images that only the first gets right, and only the second; for one run each."""

    @property
    def difference(self) -> float:
        """First minus second."""
        return self.values[0] - self.values[1]

    def images_needed(self, difference: float) -> int:
        """Images needed to detect a true `difference` at 5 % with a power of 80 %, given the measured spread."""
        from scipy.special import ndtri

        errors = float(ndtri((1 + CONFIDENCE) / 2) + ndtri(POWER))
        return math.ceil((errors * self.spread / difference) ** 2)

    def sentence(self) -> str:
        """`CGH is better than MoCo v2 in animals_knn top1 by 5.8 points (95 % 3.9 to 7.7, paired, 2,000 images; …)`."""
        better, worse = self.names if (self.difference >= 0) == self.higher_is_better else self.names[::-1]
        interval, seeds = (self._turned(side) for side in (self.interval, self.over_seeds))
        difference = abs(self.difference)
        where = f"in {self.task} {self.metric}"
        trainings = "one run each" if self.seeds == (1, 1) else f"{self.seeds[0]} and {self.seeds[1]} training runs"
        over = f"over {min(self.seeds)} seeds {_span(seeds)}" if seeds else trainings
        if interval is None:
            return (
                f"{better} is {difference:.1f} points above {worse} {where} on {self.images} images, too few for "
                f"an interval ({LEAST_IMAGES} needed); {over}"
            )
        what = f"({100 * CONFIDENCE:g} % {_span(interval)}, paired, {self.images:,} images; {over})"
        if interval[0] <= 0 <= interval[1]:
            return f"{better} and {worse} do not differ significantly {where}: {difference:.1f} points {what}"
        return f"{better} is better than {worse} {where} by {difference:.1f} points {what}"

    def _turned(self, interval: tuple[float, float] | None) -> tuple[float, float] | None:
        """The interval of the difference's size: better minus worse."""
        return interval if interval is None or self.difference >= 0 else (-interval[1], -interval[0])

    def __repr__(self) -> str:
        return self.sentence()


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1f} to {interval[1]:.1f}"


def compare(*names: str, task: str = "", work: str | Path = "work") -> list[Comparison]:
    """Compare evaluated backbones pairwise, in every task for which all have results.

    Args:
        names: two or more recipes, checkpoint names or checkpoint ids.
        task: compare only this task.
        work: the folder with results.jsonl.

    Raises:
        UserError: a name has no results, no protocol is shared, or runs have no predictions or used other images.
    """
    workspace = Workspace(Path(work))
    return pairs(sides(results.read(workspace.store)[0], workspace.root, names, task))


def compared(first: Side, second: Side, metric: str) -> Comparison:
    """Compare two backbones on the images that both answered for.

    Raises:
        UserError: they answered for different images; the message names one.
    """
    require_same_images(first, second)
    images = len(first.kept[0].images)
    a, b = first.each(metric), second.each(metric)
    interval: tuple[float, float] | None = None
    p: float | None = None
    if a is not None and b is not None:
        deltas = a - b
        test, spread = "exact McNemar" if set(np.unique(deltas)) <= {-100, 0, 100} else "sign flips", deltas.std()
        if images >= LEAST_IMAGES:
            _, low, high = paired_interval(deltas)
            interval, p = (low, high), sign_flips(deltas)
    else:
        drawn = resampled(images, lambda counts: first.measure(metric, counts) - second.measure(metric, counts))
        test, spread = "bootstrap of images", drawn.std() * math.sqrt(images)
        if images >= LEAST_IMAGES:
            interval, p = percentiles(drawn), tail(drawn)
    trainings = [side.trainings(metric) for side in (first, second)]
    means = [float(np.mean(values)) for values in trainings]
    half = float(welch_half_widths(trainings)[0, 1])
    difference = means[0] - means[1]
    return Comparison(
        task=first.runs[0].task,
        metric=metric,
        names=(first.name, second.name),
        values=(means[0], means[1]),
        interval=interval,
        p=p,
        test=test,
        images=images,
        spread=float(spread),
        seeds=(len(trainings[0]), len(trainings[1])),
        over_seeds=None if math.isnan(half) else (difference - half, difference + half),
        higher_is_better=higher_is_better(first, metric),
        flips=flips(first, second) if metric != WORST_GROUP else (),
    )


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with p-values corrected for their number, so that the chance of any false alarm is 5 %.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6 (1979).
    """
    places = sorted(
        (n for n, each in enumerate(comparisons) if each.p is not None), key=lambda n: comparisons[n].p or 0.0
    )
    corrected, worst = list(comparisons), 0.0
    for rank, place in enumerate(places):
        worst = max(worst, min(1.0, (len(places) - rank) * (comparisons[place].p or 0.0)))
        corrected[place] = replace(comparisons[place], p=worst)
    return corrected


def pairs(by_task: Sequence[Sequence[Side]]) -> list[Comparison]:
    """Every two backbones in every task, p-values corrected for all of them; by their worst groups too, where known."""
    found = []
    for row in by_task:
        grouped = all(WORST_GROUP in kept.measures for side in row for kept in side.kept)
        metrics = [main_metric(row[0]), *([WORST_GROUP] if grouped else [])]
        found += [compared(*two, metric) for metric in metrics for two in combinations(row, 2)]
    return holm(found)
