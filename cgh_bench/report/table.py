"""Tables of results: only runs under the current protocols, aggregated over seeds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cgh_bench import published, tasks
from cgh_bench.core.errors import unknown
from cgh_bench.evaluation import protocol_id
from cgh_bench.report import cells, controls, definition, formats
from cgh_bench.report.cells import Cell, Column, Row, Table
from cgh_bench.report.definition import ColumnDefinition, Definition, RowDefinition
from cgh_bench.report.sensitivity import sensitivity
from cgh_bench.report.significance import CONFIDENCE, ranks
from cgh_bench.results import Result

REACHES = ("origin", "convention", "assumed")
"""How far the proof of weights reaches, the farthest first; see `checkpoint.Reach`."""
RENDERERS: dict[str, Callable[[Table], str]] = {
    "md": formats.markdown,
    "tex": formats.latex,
    "csv": formats.csv_text,
    "html": formats.html_table,
}


def build(name: str, results: Iterable[Result]) -> Table:
    """The table `name` (or the user's file `name.toml`) filled from `results`, in the order of the store.

    Raises:
        UserError: the table is unknown, or its file names what does not exist.
    """
    return fill(definition.load(name), list(results))


def render(table: Table, format: str) -> str:
    """`table` as Markdown ("md"), LaTeX with booktabs ("tex"), tidy CSV ("csv") or a bare HTML table ("html").

    Raises:
        UserError: another format.
    """
    if format not in RENDERERS:
        raise unknown("table format", format, RENDERERS)
    return RENDERERS[format](table)


def fill(what: Definition, results: Sequence[Result]) -> Table:
    """The table that `what` defines, from those of the `results` that count."""
    columns = tuple(_column(column, results) for column in what.columns)
    wanted = {column.definition.task for column in columns}
    by_row = [[r for r in results if r.task in wanted and _belongs_to(r, row)] for row in what.rows]
    protocols = {column.protocol for column in columns}
    data = cells.newest_data([result for mine in by_row for result in mine], protocols)
    notes: list[str] = []
    grid = []
    for row, mine in zip(what.rows, by_row, strict=True):
        usable = cells.usable(mine, data, row.label, notes)
        grid.append([_cell(row, column, usable) for column in columns])
    for index, column in enumerate(columns):
        in_column = [line[index] for line in grid]
        # The spread over trainings of a backbone says nothing about the spread over repeats of a task.
        higher = column.metric.higher_is_better
        if higher is not None and len({cell.replicate for cell in in_column if cell.n}) == 1:
            order = ranks([cell.values for cell in in_column], higher)
            for line, rank in zip(grid, order, strict=True):
                line[index] = replace(line[index], rank=rank)
    reached = [controls.measured(column, results, data) for column in columns]
    rows = tuple(
        Row(row, tuple(map(controls.marked, line, columns, reached))) for row, line in zip(what.rows, grid, strict=True)
    )
    stable = [sensitivity(results, column.protocol, column.metric) for column in columns]
    of_order = [f"{column.header}: {found.sentence()}." for column, found in zip(columns, stable, strict=True) if found]
    told = (*controls.notes(columns, reached, (cell for row in rows for cell in row.cells)), *of_order, *_proofs(rows))
    return Table(what, columns, rows, (*_legend(grid), *told, *notes))


def _proofs(rows: Sequence[Row]) -> list[str]:
    """For each row, how far its weights are proved to be read correctly; of several runs, the least."""
    labels: dict[str, list[str]] = {}
    for row in rows:
        words = {str(run.origin["reach"]) for cell in row.cells for run in cell.runs if run.origin.get("reach")}
        if words:
            labels.setdefault(max(words, key=REACHES.index), []).append(row.label)
    told = [f"{word} ({', '.join(labels[word])})" if len(labels) > 1 else word for word in REACHES if word in labels]
    return [f"Proof of the weights: {'; '.join(told)}."] if told else []


def _cell(row: RowDefinition, column: Column, usable: Sequence[Result]) -> Cell:
    measured = cells.cell(usable, column.protocol, column.metric.name)
    return replace(measured, published=definition.published_results(row, column.definition))


def _belongs_to(result: Result, row: RowDefinition) -> bool:
    return bool(
        (row.recipe and result.origin.get("recipe") == row.recipe)
        or (row.checkpoint and result.checkpoint_name == row.checkpoint)
    )


def _column(column: ColumnDefinition, results: Sequence[Result]) -> Column:
    if not column.task:
        followed = published.protocols()[column.published]
        return Column(column, definition.published_metric(followed, column.name_when_published), "")
    task = tasks.find(column.task)
    metric = next(metric for metric in task.METRICS if metric.name == column.metric)
    return Column(column, metric, _newest(column, results) if column.data else protocol_id(column.task, task))


def _newest(column: ColumnDefinition, results: Sequence[Result]) -> str:
    """The protocol of the newest result on data of the user's own; empty if there is none."""
    wanted = column.task, column.data
    mine = [r for r in results if (r.task, r.config.get("data")) == wanted and not (r.overridden or r.imported)]
    return max(mine, key=lambda result: result.started).protocol if mine else ""


def _legend(grid: Sequence[Sequence[Cell]]) -> list[str]:
    filled = [cell for line in grid for cell in line]
    legend = []
    if any(cell.n > 1 for cell in filled):
        seeds = " or ".join(sorted({f"{cell.replicate}s" for cell in filled if cell.n > 1}))
        legend.append(f"Mean ± sample standard deviation (n) over {seeds}.")
    if any(cell.rank for cell in filled):
        legend.append(
            f"Bold: best; underlined: second best; shared if Welch's {CONFIDENCE:.0%} interval of the difference "
            "contains 0."
        )
    if any(cell.published for cell in filled):
        legend.append("In brackets: published; a range if sources differ.")
    return legend
