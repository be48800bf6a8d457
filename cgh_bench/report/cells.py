"""The cells of a table: which results fill them, and how repeated runs come to a mean with a spread."""

import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cgh_bench.published import PublishedResult
from cgh_bench.report.definition import ColumnDefinition, Definition, RowDefinition
from cgh_bench.results import Result
from cgh_bench.tasks.base import Metric


@dataclass(frozen=True)
class Cell:
    """One metric of one row, with the runs behind it."""

    runs: tuple[Result, ...]
    """Every run that counts, in the order of the replicates; empty if nothing was measured."""
    values: tuple[float, ...]
    """One per replicate, in the metric's unit."""
    replicate: str
    """What differs from value to value: "pretraining seed" or "evaluation seed"."""
    rank: int = 0
    """1 best, 2 second best, 0 neither or undecided: see `significance.ranks`."""
    mark: str = ""
    """Behind the value, explained below the table: see `controls`."""
    published: tuple[PublishedResult, ...] = ()
    """What others report for the same row and protocol."""

    @property
    def n(self) -> int:
        """The number of independent values."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean of the values, at least one."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """The sample standard deviation (n - 1 in the denominator) of the values, at least two."""
        return statistics.stdev(self.values)

    def text(self, decimals: int = 1) -> str:
        """`61.5 ± 0.4 (3)`, without spread `61.5`, or `–`; one decimal, as the field prints percentages."""
        if self.n < 2:
            return f"{self.mean:.{decimals}f}{self.mark}" if self.values else "–"
        return f"{self.mean:.{decimals}f}{self.mark} ± {self.std:.{decimals}f} ({self.n})"

    def published_text(self) -> str:
        """`[57.4]`, `[57.4–57.6]` if sources differ, or nothing."""
        decimals = 3 if any(each.value < 1 for each in self.published) else 1
        values = [f"{value:.{decimals}f}" for value in sorted(each.value for each in self.published)]
        return f"[{'–'.join(dict.fromkeys([values[0], values[-1]]))}]" if values else ""

    def full_text(self) -> str:
        """The measured value, then the published one in brackets; `–` if there is neither."""
        return " ".join(part for part in (self.text() if self.n else "", self.published_text()) if part) or "–"


@dataclass(frozen=True)
class Column:
    """One column, resolved: its metric and the protocol that its runs followed."""

    definition: ColumnDefinition
    metric: Metric
    protocol: str
    """The id of our protocol; empty for a column of published results only."""

    @property
    def header(self) -> str:
        """The column's title, with the unit if it is not per cent, and an arrow if lower is better."""
        return self.definition.header + self.metric.suffix


@dataclass(frozen=True)
class Row:
    """One row of a table, with a cell per column."""

    definition: RowDefinition
    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        """The row's name for people."""
        return self.definition.label


@dataclass(frozen=True)
class Table:
    """A definition filled with results."""

    definition: Definition
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """What a reader must know: the legend, and which results were left out and why."""


def newest_data(results: Iterable[Result], protocols: Collection[str]) -> dict[str, str]:
    """For each of the `protocols`, the fingerprint of the data of its newest result.

    An imported result has no fingerprint; whoever named its protocol vouches for its data.
    """
    return {
        r.protocol: r.data for r in _by_time(results) if r.protocol in protocols and not r.overridden and not r.subset
    }


def usable(mine: Sequence[Result], data: Mapping[str, str], label: str, notes: list[str]) -> list[Result]:
    """The results of one row that may fill its cells; for the others a note says why not.

    A recipe trained again with the same seed replaces the earlier training in every column, and so does a checkpoint
    of the same name without a known seed: all numbers of a row belong to the same weights.

    Args:
        mine: all results of the row, in the order of the store.
        data: for each wanted protocol, the fingerprint of the data that counts.
        label: the row's name, for the notes.
        notes: what is left out is appended.
    """
    left_over = list(mine)

    def keep(condition: Callable[[Result], bool], reason: str) -> list[Result]:
        kept = [result for result in left_over if condition(result)]
        if left_out := len(left_over) - len(kept):
            notes.append(f"{label}: {left_out} result{'s' if left_out > 1 else ''} left out ({reason}).")
        return kept

    left_over = keep(lambda result: not result.overridden, "overridden settings")
    left_over = keep(lambda result: not result.subset, "a subset of the published data")
    left_over = keep(lambda result: result.protocol in data or not result.imported, "imported without a protocol")
    left_over = keep(lambda result: result.protocol in data, "not the current protocol")
    left_over = keep(
        lambda result: result.imported or result.data == data[result.protocol], "other data than the newest result"
    )
    current = {_training(result): result.checkpoint for result in _by_time(left_over)}
    return keep(lambda result: current[_training(result)] == result.checkpoint, "replaced by newer weights")


def cell(usable: Sequence[Result], protocol: str, metric: str) -> Cell:
    """The latest result of each (checkpoint, evaluation seed), as one value per replicate.

    A replicate is a training of the backbone: repeats of a task on the same weights are not independent, so they are
    averaged first. If there is only one checkpoint, its repeats are the replicates, unless all gave the same number:
    then the seed changed nothing, and copies of one number have no spread.
    """
    runs = {
        (result.checkpoint, result.seed): result
        for result in _by_time(usable)
        if result.protocol == protocol and metric in result.metrics
    }
    ordered = tuple(sorted(runs.values(), key=lambda result: (_training(result), result.seed)))
    by_checkpoint: dict[str, list[float]] = {}
    for result in ordered:
        by_checkpoint.setdefault(result.checkpoint, []).append(result.metrics[metric])
    if len(by_checkpoint) > 1:
        return Cell(ordered, tuple(map(statistics.fmean, by_checkpoint.values())), "pretraining seed")
    values = tuple(value for repeats in by_checkpoint.values() for value in repeats)
    return Cell(ordered, values if len(set(values)) > 1 else values[:1], "evaluation seed")


def _training(result: Result) -> str:
    """What tells one training from another: its seed. Without one, nothing says that two are independent."""
    return str(result.origin.get("seed", "")).rjust(12)


def _by_time(results: Iterable[Result]) -> list[Result]:
    """The oldest first; imported results count as older than those measured here.

    Among results that were measured here a later line is newer, also where the clock was set back in between. Those
    that were merged from another store, whose folders lie elsewhere, have their place by the time that they say.
    """
    latest = ""
    timed: list[tuple[bool, str, Result]] = []
    for result in results:
        here = not result.imported and not result.work.startswith("..")
        latest = max(latest, result.started) if here else latest
        timed.append((not result.imported, latest if here else result.started, result))
    return [result for *_, result in sorted(timed, key=lambda each: each[:2])]
