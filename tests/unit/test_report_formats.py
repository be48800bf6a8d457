"""The same small table as Markdown, LaTeX, CSV and for a terminal, against what is written out here."""

import csv
import dataclasses
import io
import shutil
import subprocess
from pathlib import Path

import pytest
from reporting import TASKS, result, use_fake_tasks, write_definition
from rich.console import Console

from cgh_bench.evaluation import protocol_id
from cgh_bench.report import formats, table
from cgh_bench.report.cells import Table

KNN, LINEAR = (protocol_id(name, TASKS[name]) for name in ("knn", "linear"))
AWKWARD = r"50 % of $a_b & {c} \ ^~ #1 | *x* <script>alert(1)</script> `y`"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """A measured thrice and once, B thrice and never: A is behind in the first column."""
    use_fake_tasks(monkeypatch)
    values = {"a": [60.0, 61.0, 62.0], "b": [70.0, 71.0, 72.0]}
    runs = [result(recipe, value, pretraining=seed) for recipe in values for seed, value in enumerate(values[recipe])]
    return table.build(write_definition(tmp_path), [*runs, result("a", 7.25, task="linear")])


def renamed(small: Table, label: str) -> Table:
    first = small.rows[0]
    first = dataclasses.replace(first, definition=dataclasses.replace(first.definition, label=label))
    return dataclasses.replace(small, rows=(first, *small.rows[1:]))


def test_markdown(small: Table) -> None:
    assert table.render(small, "md") == (
        "|   |                kNN | linear error ↓ |\n"
        "| - | -----------------: | -------------: |\n"
        "| A |     61.0 ± 1.0 (3) |            7.2 |\n"
        "| B | **71.0 ± 1.0 (3)** |              – |\n"
        "\nMean ± sample standard deviation (n) over pretraining seeds.\n"
        "\nBold: best; underlined: second best; shared if Welch's 95% interval of the difference contains 0.\n"
    )


def test_latex(small: Table) -> None:
    assert table.render(small, "tex").splitlines()[2:] == [
        f"% kNN: {KNN}",
        f"% linear error ↓: {LINEAR}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & kNN & linear error $\downarrow$ \\",
        r"\midrule",
        r"A & 61.0 $\pm$ 1.0 (3) & 7.2 \\",
        r"B & \textbf{71.0 $\pm$ 1.0 (3)} & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_csv_is_tidy_and_unrounded(small: Table) -> None:
    lines = list(csv.DictReader(io.StringIO(table.render(small, "csv"))))
    assert [(line["row"], line["column"], line["mean"], line["std"], line["n"], line["rank"]) for line in lines] == [
        ("A", "kNN", "61.0", "1.0", "3", ""),
        ("A", "linear error", "7.25", "", "1", ""),
        ("B", "kNN", "71.0", "1.0", "3", "best"),
    ]
    assert lines[0]["protocol"] == KNN
    assert lines[0]["checkpoints"] == "a0 a1 a2"


def test_html(small: Table) -> None:
    text = table.render(renamed(small, AWKWARD), "html")
    assert "<td><b>71.0 ± 1.0 (3)</b></td>" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_an_empty_table_renders_in_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_tasks(monkeypatch)
    empty = table.build(write_definition(tmp_path), [])
    assert table.render(empty, "md").count("–") == 4
    assert table.render(empty, "tex").count("--") == 4
    assert table.render(empty, "csv") == ""


def test_the_terminal_shows_every_figure_within_eighty_columns(small: Table) -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(formats.rich_table(small))
    text = console.file.getvalue()
    for shown in ("Small", "kNN", "linear error ↓", "61.0", "±1.0 (3)", "7.2", "–", "Welch"):
        assert shown in text
    assert "…" not in text


def test_rows_keep_their_names_in_a_narrow_terminal(small: Table) -> None:
    rows = tuple(dataclasses.replace(row, cells=row.cells * 6) for row in small.rows)
    console = Console(file=io.StringIO(), width=80)
    console.print(formats.rich_table(dataclasses.replace(small, columns=small.columns * 6, rows=rows)))
    assert all(row.definition.label in console.file.getvalue() for row in rows)


def test_markup_in_names_is_text_everywhere(small: Table) -> None:
    awkward = renamed(small, AWKWARD)
    row = table.render(awkward, "md").splitlines()[2]
    assert "<script>" not in row.replace("\\<", "")
    assert row.replace("\\|", "").count("|") == 4
    tex = table.render(awkward, "tex")
    assert (
        r"50 \% of \$a\_b \& \{c\} \textbackslash{} \textasciicircum{}\textasciitilde{} \#1 | *x* "
        r"<script>alert(1)</script> `y` & 61.0" in tex
    )
    assert next(csv.DictReader(io.StringIO(table.render(awkward, "csv"))))["row"] == AWKWARD
    console = Console(file=io.StringIO(), width=200)
    console.print(formats.rich_table(renamed(small, "[bold]x[/bold]")))
    assert "[bold]x[/bold]" in console.file.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex; Debian: apt install texlive-latex-extra")
def test_latex_compiles(small: Table, tmp_path: Path) -> None:
    body = table.render(renamed(small, AWKWARD), "tex")
    document = f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{body}\\end{{document}}\n"
    (tmp_path / "table.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
