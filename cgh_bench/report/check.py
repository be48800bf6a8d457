"""Check a table against reference values: each difference with a verdict."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cgh_bench import published
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.report.cells import Cell, Column, Row, Table
from cgh_bench.report.definition import TABLES
from cgh_bench.report.significance import CONFIDENCE

AGREES, BELOW, ABOVE, NOT_MEASURED, NOT_JUDGED = "agrees", "below", "above", "not measured", "not judged"


@dataclass(frozen=True)
class Reference:
    """What a cell is compared with."""

    mean: float
    std: float
    """The standard deviation between runs, in the metric's unit; NaN if unknown."""
    n: int
    """The number of runs behind `mean` and `std`; 0 if `std` is taken as known."""
    source: str


@dataclass(frozen=True)
class Spread:
    """The standard deviation between runs that all cells of a column share."""

    std: float
    freedom: int
    """Degrees of freedom behind `std`; 0 if no cell has two runs."""


@dataclass(frozen=True)
class Verdict:
    """One cell, compared."""

    row: Row
    column: Column
    cell: Cell
    reference: Reference
    difference: float
    """Measured minus reference; NaN if the cell was not measured."""
    allowed: float
    """The largest difference that the spread explains; NaN if no spread is known."""
    verdict: str

    @property
    def failed(self) -> bool:
        """Whether this cell was not reproduced."""
        return self.verdict in (BELOW, ABOVE, NOT_MEASURED)


def judge(table: Table, reference: Path | None = None) -> list[Verdict]:
    """A verdict on every cell that has a reference.

    The reference is the file `reference`, else `tables/NAME.csv` of the package (both as `render(table, "csv")` writes
    them), else the published results.

    Raises:
        UserError: the reference file is missing or not such a CSV, or the table has no reference at all.
    """
    committed = reference or TABLES / f"{table.definition.name}.csv"
    known = _read(committed) if reference or committed.is_file() else {}
    spreads = [_spread(table, known, index) for index in range(len(table.columns))]
    pairs = []
    for row in table.rows:
        for column, cell, spread in zip(table.columns, row.cells, spreads, strict=True):
            found = known.get((row.label, column.definition.header)) if known else _published(column, cell)
            if found and column.protocol and (row.definition.recipe or row.definition.checkpoint):
                pairs.append((Verdict(row, column, cell, found, math.nan, math.nan, NOT_MEASURED), spread))
    if not pairs:
        raise UserError(
            f"table {table.definition.name} cannot be checked: no measurable cell has a reference "
            "(tables/NAME.csv in the package, or published results)"
        )
    # All intervals together hold with CONFIDENCE (Bonferroni): a table of twenty cells must not fail by chance.
    confidence = 1 - (1 - CONFIDENCE) / len(pairs)
    return [_judged(blank, spread, confidence) if blank.cell.n else blank for blank, spread in pairs]


def require(verdicts: Sequence[Verdict]) -> None:
    """Return if no verdict is a failure.

    Raises:
        CheckFailed: with the number of failures and the first of them.
    """
    failed = [verdict for verdict in verdicts if verdict.failed]
    if failed:
        first = failed[0]
        raise CheckFailed(
            f"{len(failed)} of {len(verdicts)} cells not reproduced; first: "
            f"{first.row.label}, {first.column.header}: {first.verdict}"
        )


def _judged(blank: Verdict, spread: Spread, confidence: float) -> Verdict:
    difference = blank.cell.mean - blank.reference.mean
    allowed = _allowed(blank.cell, blank.reference, spread, confidence)
    if math.isnan(allowed):
        verdict = NOT_JUDGED
    elif abs(difference) <= allowed:
        verdict = AGREES
    else:
        verdict = ABOVE if difference > 0 else BELOW
    return replace(blank, difference=difference, allowed=allowed, verdict=verdict)


def _spread(table: Table, known: Mapping[tuple[str, str], Reference], index: int) -> Spread:
    """The standard deviation of the column's most variable cell, over measured and reference runs.

    Two or three runs of a cell alone know theirs too badly, and the mean over the cells is too small for the most
    variable one: with it, 13 % of faithful reruns of a table fail instead of at most 5 %.
    """
    header = table.columns[index].definition.header
    variances, freedom = [], 0
    for row in table.rows:
        sides = [row.cells[index], known.get((row.label, header))]
        several = [side for side in sides if side and side.n > 1]
        if own := sum(side.n - 1 for side in several):
            variances.append(sum((side.n - 1) * side.std**2 for side in several) / own)
            freedom += own
    return Spread(math.sqrt(max(variances)) if variances else math.nan, freedom)


def _allowed(cell: Cell, reference: Reference, spread: Spread, confidence: float) -> float:
    """Half the width of the `confidence` interval of measured minus reference, if nothing really differs.

    Student's, with the column's `spread`; the normal distribution's if a published spread is taken as known. NaN if no
    spread is known.
    """
    from scipy.special import ndtri, stdtrit

    tail = (1 + confidence) / 2
    if reference.n == 0:
        # The published value is one run or the mean of a few: one is assumed, which allows more.
        return float(ndtri(tail)) * reference.std * math.sqrt(1 + 1 / cell.n)
    if spread.freedom == 0:
        return math.nan
    return float(stdtrit(spread.freedom, tail)) * spread.std * math.sqrt(1 / cell.n + 1 / reference.n)


def _published(column: Column, cell: Cell) -> Reference | None:
    """The published results of a cell as one reference: their mean, with the known spread of the protocol."""
    if not cell.published:
        return None
    protocol = published.protocols()[column.definition.published]
    values = [each.value for each in cell.published]
    spread = protocol.spread.get(column.metric.name, math.nan)
    return Reference(sum(values) / len(values), spread, 0, "; ".join(each.source for each in cell.published))


def _read(path: Path) -> dict[tuple[str, str], Reference]:
    """The measured cells of a table in CSV, by row and column."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {
                (line["row"], line["column"]): Reference(
                    float(line["mean"]), float(line["std"] or "nan"), int(line["n"]), str(path.name)
                )
                for line in csv.DictReader(file, strict=True)
                if int(line["n"])
            }
    except FileNotFoundError:
        raise UserError(f"no reference file {path}; write one with `cgh-bench table NAME --format csv`") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is not a table in CSV ({error}); write one with `cgh-bench table NAME --format csv`"
        ) from None


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A table of the verdicts, for reading."""
    lines = ["| cell | reference | measured | difference | allowed | verdict |", "| - | -: | -: | -: | -: | - |"]
    for v in verdicts:
        difference, allowed = ("–" if math.isnan(x) else f"{x:+.1f}" for x in (v.difference, v.allowed))
        lines.append(
            f"| {v.row.label}, {v.column.header} | {v.reference.mean:.1f} | {v.cell.text()} | {difference} | "
            f"{allowed.replace('+', '±')} | {v.verdict} |"
        )
    return "\n".join(lines) + "\n"
