"""Does the order of backbones depend on the protocol? Their ranks under every variant of it that was tried."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench import tasks
from cgh_bench.core.errors import UserError
from cgh_bench.report.significance import average_ranks
from cgh_bench.results import Result
from cgh_bench.tasks.base import Metric

NAMED = 3
"""The number of swaps that a sentence names."""


@dataclass(frozen=True)
class Sensitivity:
    """M backbones under V variants of a protocol; the first variant is the protocol itself."""

    names: tuple[str, ...]
    variants: tuple[str, ...]
    """The settings that differ, as `--set` takes them; the first is empty."""
    values: NDArray[np.float64]
    """(V, M)"""
    ranks: NDArray[np.float64]
    """(V, M) 1 is best; equal values share the mean of their ranks."""

    @property
    def swaps(self) -> list[tuple[str, str, list[str]]]:
        """Every two backbones whose order is not that of the protocol everywhere, and the variants where it is not."""
        found = []
        for a, b in combinations(range(len(self.names)), 2):
            order = np.sign(self.ranks[:, a] - self.ranks[:, b])
            if where := [self.variants[v] for v in np.flatnonzero(order * order[0] < 0)]:
                found.append((self.names[a], self.names[b], where))
        return sorted(found, key=lambda swap: -len(swap[2]))

    def sentence(self) -> str:
        """Whether the order is stable, and which backbones swap where."""
        tried = f"{len(self.variants) - 1} variant{'s' * (len(self.variants) > 2)} tried"
        if not self.swaps:
            return f"ranking of {', '.join(self.names)} stable under the {tried}"
        said = [f"{a} and {b} swap in {len(where)} ({where[0]})" for a, b, where in self.swaps]
        more = f" and {len(said) - NAMED} more pairs" if len(said) > NAMED else ""
        return f"ranking not stable under the {tried}: {'; '.join(said[:NAMED])}{more}"


def label_of(result: Result) -> str:
    """The recipe of a result's weights, or the name of its checkpoint."""
    return str(result.origin.get("recipe") or result.checkpoint_name)


def sensitivity(records: Sequence[Result], protocol: str, metric: Metric) -> Sensitivity | None:
    """The ranks under every variant of `protocol` that the same two or more backbones have results of.

    A variant is a run of the protocol's task on its newest data with other values of its own settings; what the weights
    expect of images is not part of it. None without any.
    """
    mine = [r for r in records if r.task == protocol.partition("@")[0] and metric.name in r.metrics and not r.subset]
    data = next((r.data for r in reversed(mine) if r.protocol == protocol), None)
    if data is None or metric.higher_is_better is None:
        return None
    fields = _fields(protocol)
    runs: dict[str, dict[str, dict[tuple[str, int], float]]] = {}
    for record in mine:
        own = record.protocol == protocol or (record.overridden and _settings(record) <= fields)
        if own and record.data == data:
            variant = " ".join(record.overridden) if record.protocol != protocol else ""
            by_run = runs.setdefault(variant, {}).setdefault(label_of(record), {})
            by_run[record.checkpoint, record.seed] = record.metrics[metric.name]
    varied = {name for variant, by_name in runs.items() if variant for name in by_name} & set(runs[""])
    names = tuple(name for name in runs[""] if name in varied)
    variants = tuple(variant for variant, by_name in runs.items() if varied <= by_name.keys())
    if len(names) < 2 or len(variants) < 2:
        return None
    variants = ("", *(variant for variant in variants if variant))
    values = np.array([[np.mean(list(runs[variant][name].values())) for name in names] for variant in variants])
    return Sensitivity(names, variants, values, average_ranks(-values if metric.higher_is_better else values))


def _fields(protocol: str) -> set[str]:
    """The settings of a protocol's task; none of a task that is not there any more."""
    try:
        task: Any = tasks.find(protocol.partition("@")[0])
    except UserError:
        return set()
    return {field.name for field in dataclasses.fields(task)} - {"data"}


def _settings(record: Result) -> set[str]:
    return {setting.partition("=")[0].partition(".")[0] for setting in record.overridden}
