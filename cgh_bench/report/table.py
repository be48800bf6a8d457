"""Tables of results: only runs under the current protocols, aggregated over seeds, every cell with its provenance."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cgh_bench import tasks
from cgh_bench.errors import unknown
from cgh_bench.evaluate import protocol_id
from cgh_bench.published import Figure
from cgh_bench.report import definition, formats
from cgh_bench.report.cells import Cell, Column, Row, Table
from cgh_bench.report.definition import Definition, RowDefinition
from cgh_bench.report.significance import CONFIDENCE, ranks
from cgh_bench.results import Result
from cgh_bench.tasks import Metric

RENDERERS: dict[str, Callable[[Table], str]] = {
    "md": formats.markdown,
    "tex": formats.latex,
    "csv": formats.csv_text,
}


def build(name: str, results: Iterable[Result]) -> Table:
    """The table `name` (or the user's file `name.toml`) filled from `results`, which are in the order of the store.

    Raises:
        UserError: the table is unknown, or its file names what does not exist.
    """
    return fill(definition.load(name), list(results))


def render(table: Table, format: str) -> str:
    """`table` as Markdown ("md"), LaTeX with booktabs ("tex") or tidy CSV ("csv").

    Raises:
        UserError: another format.
    """
    if format not in RENDERERS:
        raise unknown("table format", format, RENDERERS)
    return RENDERERS[format](table)


def fill(what: Definition, results: Sequence[Result]) -> Table:
    """The table that `what` defines, from the usable ones of `results`."""
    columns = tuple(_column(what, index) for index in range(len(what.columns)))
    wanted = {column.definition.task for column in columns}
    by_row = [[r for r in results if r.task in wanted and _is_of(r, row)] for row in what.rows]
    data = _latest_data([result for mine in by_row for result in mine], columns)
    notes: list[str] = []
    grid = []
    for row, mine in zip(what.rows, by_row, strict=True):
        usable = _usable(mine, data, row, notes)
        grid.append([_cell(column, usable, definition.published_figures(row, column.definition)) for column in columns])
    for index, column in enumerate(columns):
        cells = [line[index] for line in grid]
        # The spread over trainings of a backbone and that over repeats of a task cannot be set against each other.
        if len({cell.replicate for cell in cells if cell.n}) == 1:
            order = ranks([cell.values for cell in cells], column.metric.higher_is_better)
            for line, rank in zip(grid, order, strict=True):
                line[index] = replace(line[index], rank=rank)
    rows = tuple(Row(row, tuple(cells)) for row, cells in zip(what.rows, grid, strict=True))
    return Table(what, columns, rows, (*_legend(grid), *notes))


def _is_of(result: Result, row: RowDefinition) -> bool:
    return bool(
        (row.recipe and result.origin.get("recipe") == row.recipe)
        or (row.checkpoint and result.checkpoint_name == row.checkpoint)
    )


def _column(what: Definition, index: int) -> Column:
    column = what.columns[index]
    if not column.task:
        return Column(column, Metric(column.metric), "")
    task = tasks.find(column.task)
    metric = next(metric for metric in task.METRICS if metric.name == column.metric)
    return Column(column, metric, protocol_id(column.task, task))


def _latest_data(mine: Sequence[Result], columns: Sequence[Column]) -> dict[str, str]:
    """For each protocol the fingerprint of the data that its newest result was measured on."""
    protocols = {column.protocol for column in columns}
    return {r.protocol: r.data for r in _by_time(mine) if r.protocol in protocols and not r.overridden}


def _usable(mine: list[Result], data: dict[str, str], row: RowDefinition, notes: list[str]) -> list[Result]:
    """The results of a row that may fill its cells; for the others a note says why not.

    A recipe trained again with the same seed replaces the earlier training in every column, so that the figures of one
    row are those of the same weights.
    """

    def keep(condition: Callable[[Result], bool], reason: str) -> list[Result]:
        kept = [result for result in mine if condition(result)]
        if left := len(mine) - len(kept):
            notes.append(f"{row.label}: {left} result{'s' if left > 1 else ''} {reason} left out.")
        return kept

    mine = keep(lambda result: not result.overridden, "with overridden settings")
    mine = keep(lambda result: result.protocol in data, "under another protocol than today's")
    mine = keep(lambda result: result.data == data[result.protocol], "on other data than the newest")
    current = {_training(result): result.checkpoint for result in _by_time(mine)}
    return keep(lambda result: current[_training(result)] == result.checkpoint, "of weights since trained again")


def _cell(column: Column, usable: list[Result], published: tuple[Figure, ...]) -> Cell:
    """The latest result of each (checkpoint, evaluation seed), as one value per replicate.

    A replicate is a training of the backbone; repeats of the task on the same weights are not independent of each
    other, so they are averaged first. Only where there is a single backbone its repeats are the replicates.
    """
    runs = {
        (result.checkpoint, result.seed): result
        for result in _by_time(usable)
        if result.protocol == column.protocol and column.metric.name in result.metrics
    }
    ordered = tuple(sorted(runs.values(), key=lambda result: (_training(result), result.seed)))
    by_checkpoint: dict[str, list[float]] = {}
    for result in ordered:
        by_checkpoint.setdefault(result.checkpoint, []).append(result.metrics[column.metric.name])
    if len(by_checkpoint) > 1:
        means = tuple(statistics.fmean(values) for values in by_checkpoint.values())
        return Cell(ordered, means, "pretraining seed", published=published)
    values = tuple(value for values in by_checkpoint.values() for value in values)
    return Cell(ordered, values, "evaluation seed", published=published)


def _training(result: Result) -> str:
    """What tells one training of a recipe from another: its seed, or the weights themselves where none is recorded."""
    seed = result.origin.get("seed")
    return result.checkpoint if seed is None else str(seed).rjust(12)


def _by_time(results: Iterable[Result]) -> list[Result]:
    return sorted(results, key=lambda result: result.started)


def _legend(grid: Sequence[Sequence[Cell]]) -> list[str]:
    cells = [cell for line in grid for cell in line]
    legend = []
    if any(cell.n > 1 for cell in cells):
        seeds = " or ".join(sorted({f"{cell.replicate}s" for cell in cells if cell.n > 1}))
        legend.append(f"Mean ± sample standard deviation (n) over {seeds}.")
    if any(cell.rank for cell in cells):
        legend.append(
            f"Bold: best; underlined: second best; shared where Welch's {CONFIDENCE:.0%} interval of the difference "
            "contains 0."
        )
    if any(cell.published for cell in cells):
        legend.append("In brackets: published; a range where sources differ.")
    return legend
