"""Results as text: tables for a README, a paper or another program, and what the terminal shows."""

import csv
import io
import math
import sys
from collections.abc import Callable, Sequence
from html import escape

import rich.box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from cgh_bench import published, tasks
from cgh_bench.core.errors import printable
from cgh_bench.core.registry import registered
from cgh_bench.published import PublishedResult
from cgh_bench.report.cells import Cell, Column, Row, Table
from cgh_bench.report.correlation import FEWEST, Correlation
from cgh_bench.report.definition import published_metric
from cgh_bench.results import Result
from cgh_bench.tasks.base import metric_label

RANKS = {0: "", 1: "best", 2: "second"}
WIDTH_OF_FILES = 1000
"""Columns of output that does not go to a terminal: more than any line has."""


def markdown(table: Table) -> str:
    """A pipe table, padded so that the source is readable too, with the notes below."""
    marks = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}
    lines = [["", *(_markdown(column.header) for column in table.columns)]]
    lines += [[_markdown(row.label), *(_marked(cell, marks) for cell in row.cells)] for row in table.rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [_pipes(line, widths) for line in (lines[0], rule, *lines[1:])]
    return "\n".join(rows) + "\n" + "".join(f"\n{_markdown(note)}\n" for note in table.notes)


def _marked(cell: Cell, marks: dict[int, str], escape: Callable[[str], str] = str) -> str:
    """The text of a cell, its measured part marked by its rank."""
    if not cell.n:
        return escape(cell.full_text())
    return " ".join(filter(None, [marks[cell.rank].format(escape(cell.text())), escape(cell.published_text())]))


def _pipes(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def latex(table: Table) -> str:
    r"""A `tabular` for `\usepackage{booktabs}`; the notes and the protocols are comments."""
    marks = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
    comments = [f"% {_one_line(note)}" for note in table.notes]
    for column in table.columns:
        followed = ", published ".join(filter(None, [column.protocol, column.definition.published]))
        comments.append(f"% {_one_line(column.header)}: {_one_line(followed)}")
    rows = [
        " & ".join([_latex(row.label), *(_marked(cell, marks, _latex) for cell in row.cells)]) + r" \\"
        for row in table.rows
    ]
    head = " & ".join(["", *(_latex(column.header) for column in table.columns)]) + r" \\"
    begin, end = rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\end{tabular}"
    return "\n".join([*comments, begin, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", end]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "–": "--",
    "[": "{[}",  # at the start of a row it would be an argument of \\
    "]": "{]}",
    "↓": r"$\downarrow$",
    **{character: f"\\{character}" for character in "&%$#_"},
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def html_table(table: Table) -> str:
    """A bare `<table>` for a page of the user's own; `cgh-bench report` makes whole pages."""
    marks = {0: "{}", 1: "<b>{}</b>", 2: "<u>{}</u>"}
    head = "".join(f'<th scope="col">{escape(column.header)}</th>' for column in table.columns)
    rows = [
        f'<tr><th scope="row">{escape(row.label)}</th>'
        + "".join(f"<td>{_marked(cell, marks, escape)}</td>" for cell in row.cells)
        + "</tr>"
        for row in table.rows
    ]
    notes = [f"<p>{escape(note)}</p>" for note in table.notes]
    return "\n".join(["<table>", f"<tr><td></td>{head}</tr>", *rows, "</table>", *notes]) + "\n"


def csv_text(table: Table) -> str:
    """Tidy: one line per cell with a value, numbers unrounded, checkpoints of its runs joined by spaces."""
    out = io.StringIO()
    lines = [
        _csv_fields(row, column, cell)
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.n or cell.published
    ]
    if lines:
        writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return out.getvalue()


def _csv_fields(row: Row, column: Column, cell: Cell) -> dict[str, str]:
    return {
        "row": row.label,
        "recipe": row.definition.recipe,
        "column": column.definition.header,
        "protocol": column.protocol,
        "published_protocol": column.definition.published,
        "metric": column.metric.name,
        "unit": column.metric.unit,
        "mean": repr(cell.mean) if cell.n else "",
        "std": repr(cell.std) if cell.n > 1 else "",
        "n": str(cell.n),
        "replicate": cell.replicate if cell.n else "",
        "rank": RANKS[cell.rank],
        "published": " ".join(dict.fromkeys(each.text for each in cell.published)),
        "checkpoints": " ".join(dict.fromkeys(run.checkpoint for run in cell.runs)),
    }


def rich_table(table: Table) -> Grid:
    """The table for a rich console."""
    drawn = _grid(title=Text(table.definition.title), caption=Text("\n".join(table.notes)), caption_justify="left")
    drawn.add_column("", no_wrap=True)
    for column in table.columns:  # in a narrow terminal headers wrap, and rows keep their names
        drawn.add_column(Text(column.header), justify="right")
    for row in table.rows:
        drawn.add_row(Text(row.label), *map(_two_lines, row.cells))
    return drawn


def _two_lines(cell: Cell) -> Text:
    """The mean above its spread, so that many columns fit a narrow terminal."""
    mean, _, spread = (cell.text() if cell.n or not cell.published else "").replace("± ", "±").partition(" ")
    style = {0: "", 1: "bold", 2: "underline"}[cell.rank]
    lines = [Text(mean, style), Text(spread, "dim"), Text(cell.published_text(), "dim")]
    return Text("\n").join(line for line in lines if line)


def show_result(result: Result, *, reused: bool = False, console: Console | None = None) -> None:
    """One line: the task, the seed, its declared metrics in their order, and its time or that it was reused."""
    line = Text(f"{result.task}, seed {result.seed}: ")
    reported = [metric for metric in tasks.find(result.task).METRICS if metric.name in result.metrics]
    for number, metric in enumerate(reported):
        unit = "" if metric.unit in ("%", "") else f" {metric.unit}"
        line.append(("  " if number else "") + f"{metric_label(metric.name)} ")
        line.append(f"{result.metrics[metric.name]:.2f}{unit}", "" if number else "bold")
    if result.subset:
        line.append(f"  on a subset ({result.subset})")
    if _reach(result):
        line.append(f"  {_reach(result)}", "dim")
    line.append("  reused" if reused else f"  {result.seconds:.1f} s", "dim")
    (console or Console(highlight=False)).print(line, soft_wrap=True)


def show_results(numbered: Sequence[tuple[int, Result]], console: Console | None = None) -> None:
    """One row per result: its number in the store, protocol, checkpoint, main metric, and what sets it apart.

    One line each, or two if the terminal is too narrow; a file or a pipe gets lines of any length.
    """
    rows = [_summary(number, result) for number, result in numbered]
    if console is None and not sys.stdout.isatty():
        for row in rows:
            print(*(str(cell).replace("\n", ", ") for cell in row), sep="\t")
        return
    console = console or Console(highlight=False)
    drawn = _grid("", "protocol", "checkpoint")
    for header in ("seed", "result"):
        drawn.add_column(header, justify="right", no_wrap=True)
    drawn.add_column("started", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    if console.measure(drawn, options=console.options.update(max_width=WIDTH_OF_FILES)).maximum <= console.width:
        console.print(drawn)
        return
    for number, protocol, checkpoint, seed, value, started in rows:
        console.print(Text.assemble(number, " ", protocol, f", seed {seed}: ", (value, "bold")))
        console.print(Padding(Text.assemble((f"{started}  ", "dim"), checkpoint), (0, 0, 0, len(number) + 1)))


def _reach(result: Result) -> str:
    """How far the weights are proved to be read correctly; empty if up to the outputs of the original model."""
    reach = result.origin.get("reach") or "origin"
    return "" if reach == "origin" else f"proof of the weights: {reach}"


def _summary(number: int, result: Result) -> tuple[str, Text, Text, str, str, str]:
    known = registered("cgh_bench.tasks", "TASKS").get(result.task)
    declared = [metric.name for metric in known.METRICS if metric.name in result.metrics] if known else []
    main = next(iter([*declared, *result.metrics]), "")
    marks = ["imported"] * result.imported + [f"overridden: {', '.join(result.overridden)}"] * bool(result.overridden)
    marks += [f"subset: {result.subset}"] * bool(result.subset)
    marks += [_reach(result)] * bool(_reach(result))
    marks += [f"data: {result.config.get('data')}"] * bool(known and not known.data)
    return (
        str(number),
        Text(printable(result.protocol if not result.imported else f"{result.task} {result.protocol}")),
        Text("\n").join([Text(printable(result.checkpoint_name)), *(Text(printable(mark), "dim") for mark in marks)]),
        str(result.seed),
        f"{printable(metric_label(main))} {result.metrics.get(main, float('nan')):.2f}",
        printable(result.started[:16].replace("T", " ")),
    )


def show_correlations(correlations: Sequence[Correlation]) -> None:
    """One line for each."""
    drawn = _grid("protocol", "metric", "ρ", "95 % interval", "checkpoints")
    for each in correlations:
        shown = ("–", "") if math.isnan(each.rho) else (f"{each.rho:+.2f}", f"{each.low:+.2f} to {each.high:+.2f}")
        drawn.add_row(Text(printable(each.protocol)), Text(printable(each.metric)), *shown, str(each.checkpoints))
    console = Console(highlight=False)
    console.print(drawn)
    if any(math.isnan(each.rho) for each in correlations):
        console.print(f"–: fewer than {FEWEST} checkpoints in common, or all with one value", style="dim")


def show_published(protocol: str = "", method: str = "", console: Console | None = None) -> None:
    """The published results of a protocol, of a method, or of both; without either, the list of protocols.

    Raises:
        UserError: the protocol or method is unknown; with the nearest names.
    """
    console = console or Console(highlight=False)
    if not protocol and not method:
        drawn = _grid("protocol", "results", "")
        for name, each in published.protocols().items():
            drawn.add_row(name, str(len(published.select(name))), Text(each.title))
        console.print(drawn)
        return
    chosen = published.select(protocol, method)
    for name in dict.fromkeys(each.protocol for each in chosen):
        _show_protocol(published.protocols()[name], [each for each in chosen if each.protocol == name], console)
    for conflict in published.conflicts(chosen):
        values = ", ".join(f"{each.text} ({each.place})" for each in conflict.results)
        what = f"{conflict.protocol}, {_variant(conflict.results[0])}, {metric_label(conflict.metric)}"
        console.print(Text(f"conflicting sources: {what}: {values}"))


def _show_protocol(protocol: published.Protocol, results: Sequence[PublishedResult], console: Console) -> None:
    console.print(Text(protocol.title, "bold"), Text(protocol.note), sep="\n")
    if protocol.spread:
        spread = ", ".join(f"{metric_label(metric)} {value:g}" for metric, value in protocol.spread.items())
        console.print(Text(f"standard deviation between runs: {spread}; {protocol.spread_source}"))
    metrics = list(dict.fromkeys(each.metric for each in results))
    costs = any(each.cost for each in results)
    drawn = _grid("method", *(["views per epoch"] if costs else []))
    for metric in metrics:
        shown = metric_label(metric) + published_metric(protocol, metric).suffix
        drawn.add_column(shown, justify="right", no_wrap=True)
    drawn.add_column("source")
    notes = list(dict.fromkeys(each.deviation for each in results if each.deviation))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for each in results:
        note = f" [{notes.index(each.deviation) + 1}]" if each.deviation else ""
        key = (_variant(each), note, published.COSTS[each.cost], each.place)
        rows.setdefault(key, {})[each.metric] = each.text
    for (variant, note, cost, place), values in rows.items():
        numbers = (values.get(metric, "") for metric in metrics)
        drawn.add_row(Text(variant + note), *([cost] if costs else []), *numbers, Text(place, "dim"))
    console.print(drawn)
    for number, note in enumerate(notes, start=1):
        console.print(Text(f"[{number}] {note}", "dim"))
    for sentence in published.unread(protocol.name):
        console.print(Text(sentence, "dim"))


def _variant(each: PublishedResult) -> str:
    detail = f" ({each.detail})" if each.detail else ""
    return f"{each.method}{detail}" + ("" if each.epochs is None else f", {each.epochs} ep")


def _grid(*headers: str, **options: Text | str) -> Grid:
    return Grid(*headers, box=rich.box.SIMPLE_HEAD, pad_edge=False, **options)  # type: ignore[arg-type]
