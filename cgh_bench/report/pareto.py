"""Which backbones no other beats at the same or a lower cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.report import definition
from cgh_bench.report.sides import Side, higher_is_better, main_metric
from cgh_bench.results import Result


def _epochs(run: Result) -> float | None:
    if recipe := registered("cgh_bench.pretrain.methods", "RECIPES").get(str(run.origin.get("recipe"))):
        return float(recipe.epochs)
    rows = (row for table in definition.names() for row in definition.load(table).rows)
    return next((row.epochs for row in rows if row.checkpoint == run.checkpoint_name and row.epochs is not None), None)


def _milliseconds(run: Result) -> float | None:
    rate = run.cost.get("images_per_second")
    return 1000 / rate if rate else None


COSTS: Mapping[str, tuple[str, float, Callable[[Result], float | None]]] = {
    "parameters": ("million parameters", 1e6, lambda run: run.origin.get("parameters")),
    "flops": ("GFLOPs per image", 1e9, lambda run: run.cost.get("flops")),
    "speed": ("ms per image", 1, _milliseconds),
    "epochs": ("epochs of pretraining", 1, _epochs),
}
"""For each cost its unit, how many of what a result records make one, and where that stands."""


@dataclass(frozen=True)
class Point:
    """One backbone in one task."""

    name: str
    cost: float
    value: float
    best: bool
    """Whether no other is better at the same or a lower cost."""


def pareto(row: Sequence[Side], cost: str) -> list[Point]:
    """The backbones of a protocol, the cheapest first.

    Raises:
        UserError: a result did not record this cost, or speeds were measured on different devices.
    """
    unit, size, of = COSTS[cost]
    metric = main_metric(row[0])
    costs = [of(side.runs[0]) for side in row]
    if lacking := [side.name for side, value in zip(row, costs, strict=True) if value is None]:
        raise UserError(
            f"{row[0].runs[0].task} has no {unit} of {', '.join(lacking)}; results before 0.1 lack FLOPs and speed "
            "(`eval … --again` measures them), checkpoints of others their epochs"
        )
    if cost == "speed" and len(devices := {side.runs[0].device for side in row}) > 1:
        raise UserError(f"speeds were measured on different devices: {', '.join(sorted(devices))}")
    values = [float(np.mean(side.trainings(metric))) for side in row]
    up = higher_is_better(row[0], metric)
    known = [(float(c or 0) / size, value, side.name) for c, value, side in zip(costs, values, row, strict=True)]
    return [
        Point(name, spent, value, not any(_beats(other, (spent, value), up) for other in known))
        for spent, value, name in sorted(known)
    ]


def _beats(one: tuple[float, float, str], other: tuple[float, float], up: bool) -> bool:
    """Whether one is better at the same or a lower cost, or as good at a lower."""
    gain = (one[1] - other[1]) * (1 if up else -1)
    return one[0] <= other[0] and gain >= 0 and (one[0] < other[0] or gain > 0)
