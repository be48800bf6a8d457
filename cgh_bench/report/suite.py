"""Suites: which tasks, and what they came to, as one wide table."""

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cgh_bench import tasks
from cgh_bench.core import config
from cgh_bench.core.errors import printable, unknown
from cgh_bench.report.definition import document
from cgh_bench.tasks.base import Metric

SUITES = Path(__file__).parent / "suites"


@dataclass(frozen=True)
class Entry:
    """One line of a suite: a metric of a task."""

    header: str
    task: str
    metric: str

    @property
    def declared(self) -> Metric:
        """The metric as the task declares it."""
        return next(metric for metric in tasks.find(self.task).METRICS if metric.name == self.metric)


@dataclass(frozen=True)
class Group:
    """Lines that belong together."""

    name: str
    entries: tuple[Entry, ...]
    mean: bool = False
    """Whether their mean is shown too: of all of them, or not at all."""


@dataclass(frozen=True)
class Suite:
    """What is evaluated, in which order it is shown."""

    name: str
    title: str
    description: str
    groups: tuple[Group, ...]

    @property
    def entries(self) -> list[Entry]:
        """The entries of all groups."""
        return [entry for group in self.groups for entry in group.entries]


@dataclass(frozen=True)
class Value:
    """The mean of a metric over evaluation seeds, and its 95 % interval over images where the answers give one."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass
class Filled:
    """A suite with what was measured."""

    suite: Suite
    checkpoints: list[str] = field(default_factory=list)
    values: dict[tuple[Entry, str], Value] = field(default_factory=dict)
    """The value of each entry and checkpoint."""
    absent: dict[str, str] = field(default_factory=dict)
    """Why a task was left out."""
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why a task cannot use a checkpoint, by task and checkpoint."""

    def mean(self, entries: Sequence[Entry], checkpoint: str) -> Value | None:
        """The mean of the entries, if all were measured."""
        found = [self.values.get((entry, checkpoint)) for entry in entries]
        return Value(statistics.fmean(each.value for each in found if each)) if all(found) else None


def load(name: str) -> Suite:
    """The suite `name`, or the one in the file `name` if that ends in `.toml`.

    Raises:
        UserError: no such suite or file, invalid TOML, a wrong field, or an unknown task or metric.
    """
    with document(name, SUITES, "suite") as content:
        suite = config.read(Suite, content)
        for entry in suite.entries:
            metrics = [metric.name for metric in tasks.find(entry.task).METRICS]
            if entry.metric not in metrics:
                raise unknown(f"metric of {entry.task}", entry.metric, metrics)
    return suite


Line = tuple[str, list[Value | None]]
"""A header and the value of each checkpoint."""


def lines(filled: Filled) -> list[tuple[str, list[Line]]]:
    """The groups that have values, each with its lines: the entries, and their mean where it is shown."""
    found = []
    for group in filled.suite.groups:
        inside: list[Line] = [
            (
                f"{entry.header}{entry.declared.suffix}",
                [filled.values.get((entry, name)) for name in filled.checkpoints],
            )
            for entry in group.entries
        ]
        if group.mean:
            inside.append(("mean", [filled.mean(group.entries, name) for name in filled.checkpoints]))
        found.append((group.name, [line for line in inside if any(line[1])]))
    return [(name, inside) for name, inside in found if inside]


def text(value: Value | None) -> str:
    """`61.5 [59.3, 63.6]`, or `–`."""
    if value is None:
        return "–"
    span = f" [{value.interval[0]:.1f}, {value.interval[1]:.1f}]" if value.interval else ""
    return f"{value.value:.1f}{span}"


def markdown(filled: Filled) -> str:
    """A pipe table, one line for each entry, and below it what was left out."""
    names = [printable(name) for name in filled.checkpoints]
    rows = [f"| {filled.suite.title} | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for group, inside in lines(filled):
        rows.append(f"| **{group}** |{' |' * len(names)}")
        rows += [f"| {header} | {' | '.join(map(text, values))} |" for header, values in inside]
    return "\n".join([*rows, "", *notes(filled)]) + "\n"


def csv_text(filled: Filled) -> str:
    """One line for each entry and checkpoint, numbers unrounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", "task", "metric", "checkpoint", "value", "low", "high"])
    for group in filled.suite.groups:
        for entry in group.entries:
            for name in filled.checkpoints:
                if value := filled.values.get((entry, name)):
                    low, high = value.interval or ("", "")
                    writer.writerow([group.name, entry.task, entry.metric, name, value.value, low, high])
    return out.getvalue()


def terminal(filled: Filled) -> str:
    """The table with aligned columns, and below it what was left out."""
    rows: list[tuple[str, ...]] = [(filled.suite.title, *map(printable, filled.checkpoints))]
    for group, inside in lines(filled):
        rows += [(), (group,), *((f"  {header}", *map(text, values)) for header, values in inside)]
    widths = [max(len(row[column]) for row in rows if len(row) > column) for column in range(len(rows[0]))]
    aligned = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return "\n".join([*aligned, "", *notes(filled)]) + "\n"


def notes(filled: Filled) -> list[str]:
    """What a reader must know: what the intervals are, and what was left out and why."""
    known = any(value.interval for value in filled.values.values())
    legend = ["In brackets: 95 % interval over images, for these weights."] if known else []
    absent = [f"Left out: {task}: {why}" for task, why in filled.absent.items()]
    refused = [f"Left out: {task} of {printable(name)}: {why}" for (task, name), why in filled.refused.items()]
    return [*legend, *absent, *refused]


FORMATS: dict[str, Callable[[Filled], str]] = {"terminal": terminal, "md": markdown, "csv": csv_text}
