"""One HTML page of a table and all that is behind it: self-contained, opened from disk, asking the network nothing."""

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cgh_bench import results
from cgh_bench.data import dense
from cgh_bench.data import scenes as embedded
from cgh_bench.files import write_text
from cgh_bench.report import curves, provenance, retrieval, scenes, table
from cgh_bench.report.cells import Table
from cgh_bench.results import Result

TEMPLATES = Path(__file__).parent / "templates"
SIZE_MARK = "@page-weight@"


@dataclass(frozen=True)
class Gallery:
    """The pictures of one column's task."""

    queries: Sequence[retrieval.Query] = ()
    detections: Sequence[scenes.Scene] = ()
    segmentations: Sequence[scenes.Scene] = ()
    classes: Sequence[tuple[str, str]] = ()
    """Name and CSS colour."""


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
    notes = list(complaints)
    context = {
        "table": filled,
        "provenance": provenance.of_table(filled),
        "protocols": provenance.protocols(filled),
        "published_protocols": provenance.published_protocols(filled),
        "facts": _facts(filled),
        "run_charts": curves.run_charts(filled),
        "loss_charts": curves.loss_charts(filled, work, notes),
        "gallery": _gallery(filled, store.parent, work, notes),
        "notes": notes,
        "made": datetime.datetime.now(datetime.UTC),
        "least_score": scenes.LEAST_SCORE,
    }
    write_text(out, _weighed(render("page.html", context)))
    return out


def render(template: str, context: dict[str, Any]) -> str:
    """A template of the package, filled; every value is escaped unless it is `Markup`."""
    import plotly.offline

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(plotly.offline.get_plotlyjs()),
        page_weight=SIZE_MARK,
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return environment.get_template(template).render(context)


def _weighed(html: str) -> str:
    """`html` with its own size where the mark is."""
    size = len(html.encode()) / 1e6
    return html.replace(SIZE_MARK, f"{size:.1f} MB")


def _facts(filled: Table) -> list[str]:
    """The line under the title."""
    runs = {id(run): run for row in filled.rows for cell in row.cells for run in cell.runs}.values()
    if not runs:
        quoted = sum(len(cell.published) for row in filled.rows for cell in row.cells)
        return [f"{quoted} published figures", "nothing measured yet"] if quoted else ["no results yet"]
    checkpoints = len({run.checkpoint for run in runs})
    days = sorted(run.started[:10] for run in runs)
    return [
        f"{checkpoints} checkpoint{'s' if checkpoints > 1 else ''}",
        f"{len({run.task for run in runs})} tasks",
        f"{len(runs)} evaluations",
        days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}",
    ]


def _gallery(filled: Table, root: Path, work: Path, notes: list[str]) -> Gallery:
    """What can be drawn of the side products that the table's runs left in their folders below `root`."""
    asked = _runs_with(filled, lambda run: (root / run.work / retrieval.FILE).exists())
    detected = _runs_with(filled, lambda run: _on_scenes(run) and (root / run.work / scenes.DETECTIONS).exists())
    segmented = _runs_with(filled, lambda run: _on_scenes(run) and (root / run.work / scenes.SEGMENTATIONS).exists())
    if any(cell.n for row in filled.rows for cell in row.cells) and not (asked or detected or segmented):
        notes.append("No pictures: the folders that the runs left are not beside the results.")
    queries = retrieval.queries(asked, root, notes) if asked else []
    if not detected and not segmented:
        return Gallery(queries)
    located = dense.locate(embedded.NAME, work / "cache")
    if any(run.data != located.fingerprint for _, run in [*detected, *segmented]):
        notes.append(f"No detections and segmentations: the runs were on other {embedded.NAME} than today's.")
        return Gallery(queries)
    truth = scenes.read_truth(located.root / embedded.NAME / "val")
    return Gallery(
        queries,
        scenes.detections(truth, detected, root, notes),
        scenes.segmentations(truth, segmented, root, notes),
        [(name, scenes.css_colour(index)) for index, name in enumerate(truth.classes)],
    )


def _on_scenes(run: Result) -> bool:
    """Only the embedded scenes are at hand to draw on."""
    return run.config.get("data") == embedded.NAME


def _runs_with(filled: Table, left: Callable[[Result], bool]) -> list[tuple[str, Result]]:
    """The first run of every row, in the first column where one of them has `left` what is to be drawn."""
    for index in range(len(filled.columns)):
        runs = [(row.label, row.cells[index].runs[0]) for row in filled.rows if row.cells[index].runs]
        if any(left(run) for _, run in runs):
            return runs
    return []
