"""What a table holds: cells with their spread and the runs behind them."""

import statistics
from dataclasses import dataclass

from cgh_bench.published import Figure
from cgh_bench.report.definition import ColumnDefinition, Definition, RowDefinition
from cgh_bench.results import Result
from cgh_bench.tasks import Metric


@dataclass(frozen=True)
class Cell:
    """One metric of one row, with its provenance."""

    runs: tuple[Result, ...]
    """Every run that counts, replicates in order; none for a cell that was not measured."""
    values: tuple[float, ...]
    """One per replicate, in the metric's unit."""
    replicate: str
    """What differs from value to value: "pretraining seed" or "evaluation seed"."""
    rank: int = 0
    """1 best, 2 second best, 0 neither or undecided: see `significance.ranks`."""
    published: tuple[Figure, ...] = ()
    """What others report for the same row and protocol."""

    @property
    def n(self) -> int:
        """The number of independent values."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Of the values; there must be one."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """The sample standard deviation (n - 1 in the denominator); there must be two values."""
        return statistics.stdev(self.values)

    def text(self) -> str:
        """`61.5 ± 0.4 (3)`, without spread `61.5`, or `–`; one decimal, as the field prints percentages."""
        if self.n < 2:
            return f"{self.mean:.1f}" if self.values else "–"
        return f"{self.mean:.1f} ± {self.std:.1f} ({self.n})"

    def published_text(self) -> str:
        """`[57.4]`, `[57.4–57.6]` where sources differ, or nothing."""
        values = sorted({round(figure.value, 1) for figure in self.published})
        if not values:
            return ""
        return f"[{values[0]:.1f}]" if len(values) == 1 else f"[{values[0]:.1f}–{values[-1]:.1f}]"

    def full_text(self) -> str:
        """The measured figure, then the published one in brackets; of one alone, just that."""
        return " ".join(part for part in (self.text() if self.n else "", self.published_text()) if part) or "–"


@dataclass(frozen=True)
class Column:
    """One column, resolved: its metric and the protocol that its runs followed."""

    definition: ColumnDefinition
    metric: Metric
    protocol: str
    """The id of our protocol; empty for a column of published figures only."""

    @property
    def header(self) -> str:
        """With the unit where it is not per cent, and the direction where less is better."""
        unit = "" if self.metric.unit == "%" else f" [{self.metric.unit}]"
        return self.definition.header + unit + ("" if self.metric.higher_is_better else " ↓")


@dataclass(frozen=True)
class Row:
    """One line of a table, a cell for each column."""

    definition: RowDefinition
    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        """For people."""
        return self.definition.label


@dataclass(frozen=True)
class Table:
    """A definition filled with results."""

    definition: Definition
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """What a reader must know: the legend, and which results were left out and why."""
