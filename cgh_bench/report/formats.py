"""A table as text for a terminal, a README, a paper, or another program."""

import csv
import io
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from cgh_bench.report.cells import Cell, Column, Row, Table

if TYPE_CHECKING:
    import rich.table
    from rich.text import Text

RANKS = {0: "", 1: "best", 2: "second"}


def rich_table(table: Table) -> "rich.table.Table":
    """For a rich console."""
    import rich.box
    import rich.table
    from rich.text import Text

    drawn = rich.table.Table(
        title=Text(table.definition.title),
        caption=Text("\n".join(table.notes)),
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
    )
    drawn.add_column("")
    for column in table.columns:
        drawn.add_column(Text(column.header), justify="right", no_wrap=True)
    for row in table.rows:
        drawn.add_row(Text(row.label), *(_two_lines(cell) for cell in row.cells))
    return drawn


def _two_lines(cell: Cell) -> "Text":
    """The mean above its spread, so that many columns fit a narrow terminal."""
    from rich.text import Text

    mean, _, spread = (cell.text() if cell.n or not cell.published else "").replace("± ", "±").partition(" ")
    style = {0: "", 1: "bold", 2: "underline"}[cell.rank]
    lines = [Text(mean, style), Text(spread, "dim"), Text(cell.published_text(), "dim")]
    return Text("\n").join(line for line in lines if line)


def markdown(table: Table) -> str:
    """A pipe table, its columns padded so that the source reads well too, and the notes below."""
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
    r"""A `tabular` for `\usepackage{booktabs}`; the notes and the protocols as comments."""
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
    "–": "--",
    "[": "{[}",  # behind a line's end it would be an argument of \\
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
    """Tidy: one line per cell that was measured, numbers unrounded, checkpoints of its runs joined by spaces."""
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
        "published": " ".join(dict.fromkeys(figure.text for figure in cell.published)),
        "checkpoints": " ".join(dict.fromkeys(run.checkpoint for run in cell.runs)),
    }
