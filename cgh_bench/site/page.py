"""One HTML page of a table and all that is behind it: self-contained, opened from disk, asking the network nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgh_bench import results
from cgh_bench.core.files import write_text
from cgh_bench.report import provenance, table
from cgh_bench.report.cells import Table
from cgh_bench.site import charts, curves
from cgh_bench.site.gallery import gallery
from cgh_bench.site.rendering import render


def write(table_name: str, store: Path, work: Path, out: Path) -> Path:
    """Write the page of a table to the file `out` and return it.

    Args:
        table_name: see `table.build`.
        store: the results, JSON lines; side products of the runs are in the folders beside it.
        work: the workspace with `pretrain/RECIPE/seedK/log.jsonl` and `cache/`.
        out: the HTML file.

    Raises:
        UserError: the table is unknown, or its file names what does not exist.
    """
    records, complaints = results.read(store)
    filled = table.build(table_name, records)
    write_text(out, render("page.html", context(filled, store.parent, work, complaints)))
    return out


def context(filled: Table, root: Path, work: Path, complaints: Sequence[str] = ()) -> dict[str, Any]:
    """What the template of a table's page shows."""
    notes = list(complaints)
    by_task = [
        [(row.label, row.cells[index].runs[0]) for row in filled.rows if row.cells[index].runs]
        for index in range(len(filled.columns))
    ]
    run_charts, loss_charts = charts.run_charts(filled), curves.loss_charts(filled, work, notes)
    return {
        "table": filled,
        "provenance": provenance.of_table(filled),
        "protocols": provenance.protocols(filled),
        "published_protocols": provenance.published_protocols(filled),
        "facts": _facts(filled),
        "run_charts": run_charts,
        "loss_charts": loss_charts,
        "charts": bool(run_charts or loss_charts),
        "gallery": gallery([runs for runs in by_task if runs], root, work, notes),
        "notes": notes,
    }


def _facts(filled: Table) -> list[str]:
    """The line under the title."""
    runs = {id(run): run for row in filled.rows for cell in row.cells for run in cell.runs}.values()
    if not runs:
        quoted = sum(len(cell.published) for row in filled.rows for cell in row.cells)
        return [f"{quoted} published figures", "nothing measured yet"] if quoted else ["no results yet"]
    checkpoints = len({run.checkpoint for run in runs})
    days = sorted(run.started[:10] for run in runs)
    return [
        _count(checkpoints, "checkpoint"),
        _count(len({run.task for run in runs}), "task"),
        _count(len(runs), "evaluation"),
        days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}",
    ]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
