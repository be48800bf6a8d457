"""The runs of each of several backbones, protocol by protocol, with what they answered for each image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgh_bench import outcomes, tasks
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.outcomes import Outcomes
from cgh_bench.results import Result

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """The runs of one backbone in one protocol, with what they answered."""

    name: str
    runs: tuple[Result, ...]
    kept: tuple[Outcomes, ...]

    def each(self, metric: str) -> Floats | None:
        """The mean over the runs of the metric of each image, where it is a mean over images."""
        values = [outcome.each(metric) for outcome in self.kept]
        if any(value is None for value in values):
            return None
        return np.mean(np.array(values, np.float64), axis=0)

    def measure(self, metric: str, counts: NDArray[np.int64]) -> Floats:
        """The mean over the runs of the metric, of resampled images."""
        return np.mean([outcome.measure(metric, counts) for outcome in self.kept], axis=0)

    def trainings(self, metric: str) -> list[float]:
        """The metric of each training, the mean over its evaluations."""
        found: dict[str, list[float]] = {}
        for run in self.runs:
            found.setdefault(run.checkpoint, []).append(run.metrics[metric])
        return [float(np.mean(values)) for values in found.values()]


def sides(records: Sequence[Result], root: Path, names: Sequence[str], task: str = "") -> list[list[Side]]:
    """For each protocol that all of `names` have results of, the runs of each of them.

    Args:
        records: all results, the oldest first.
        root: the folder of the results.
        names: of recipes, of checkpoints, or checkpoint ids; two or more.
        task: only this one.

    Raises:
        UserError: a name has no results, there is no protocol in common, or runs kept no answers.
    """
    if len(set(names)) < 2:
        raise UserError("compare needs two different backbones: recipes, checkpoint names or ids of `results list`")
    mine = [_results_of(records, name) for name in names]
    shared = {(r.protocol, r.data) for r in mine[0]}
    for found in mine[1:]:
        shared &= {(r.protocol, r.data) for r in found}
    wanted = [key for key in dict.fromkeys((r.protocol, r.data) for r in mine[0]) if key in shared]
    wanted = [key for key in wanted if task in ("", key[0].partition("@")[0])]
    if not wanted:
        had = [sorted({r.protocol for r in found}) for found in mine]
        listed = "; ".join(f"{name}: {', '.join(known)}" for name, known in zip(names, had, strict=True))
        of = f" of task {task}" if task else ""
        raise UserError(f"no protocol{of} under which all have results on the same data ({listed})")
    return [[_side(name, key, found, root) for name, found in zip(names, mine, strict=True)] for key in wanted]


def _results_of(records: Sequence[Result], name: str) -> list[Result]:
    own = [r for r in records if not r.imported]
    for of in (
        lambda r: str(r.origin.get("recipe", "")),
        lambda r: r.checkpoint_name,
        lambda r: r.checkpoint,
    ):
        if found := [r for r in own if of(r) == name]:
            return found
    raise unknown("backbone", name, {str(r.origin.get("recipe") or r.checkpoint_name) for r in own})


def _side(name: str, key: tuple[str, str], found: Sequence[Result], root: Path) -> Side:
    latest = {(r.checkpoint, r.seed): r for r in found if (r.protocol, r.data) == key}
    runs = tuple(sorted(latest.values(), key=lambda r: (str(r.origin.get("seed", "")), r.seed)))
    return Side(name, runs, tuple(outcomes.of_run(run, root) for run in runs))


def higher_is_better(side: Side, metric: str) -> bool:
    """Whether the task's metric is one, as far as the task says."""
    return all(
        known.higher_is_better is not False for known in tasks.find(side.runs[0].task).METRICS if known.name == metric
    )


def main_metric(side: Side) -> str:
    """The first metric of the task that its answers determine."""
    known = [metric.name for metric in tasks.find(side.runs[0].task).METRICS]
    metric = next((name for name in known if all(name in kept.measures for kept in side.kept)), None)
    if metric is None:
        raise UserError(f"the predictions of {side.runs[0].task} determine none of {', '.join(known)}")
    return metric


def require_same_images(first: Side, second: Side) -> None:
    """Refuse runs on different images, and say which differ."""
    one, *others = [*first.kept, *second.kept]
    for other in others:
        if other.images.order == one.images.order:
            continue
        what = f"{first.name} and {second.name} answered for different images in {first.runs[0].task}"
        pairs = zip(one.images.ids, other.images.ids, strict=False)
        place = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
        if len(one.images) != len(other.images):
            odd = sorted(set(one.images.ids) ^ set(other.images.ids))
            told = f"{len(one.images)} and {len(other.images)}; only in one: {', '.join(odd[:3])}"
        elif place is not None:
            told = f"number {place} is {one.images.ids[place]} and {other.images.ids[place]}"
        else:
            told = "the names are the same, but not the content"
        raise UserError(f"{what} ({told}); evaluate both on the same data")
