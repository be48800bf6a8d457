"""One self-contained HTML page for a table; what all pages share: templates, assets, and proofs of the weights."""

import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cgh_bench import published, results
from cgh_bench.core.files import write_text
from cgh_bench.report import provenance, table
from cgh_bench.report.cells import Table
from cgh_bench.results import Result
from cgh_bench.site import charts
from cgh_bench.site.gallery import gallery
from cgh_bench.site.truth import noting
from cgh_bench.tasks.base import metric_label

TEMPLATES = Path(__file__).parent / "templates"
TEXTS = {"Markdown": "md", "LaTeX": "tex", "CSV": "csv"}
"""What a table can be copied as, and the format of `table.render`."""
CERTIFICATE = ".certificate.json"


def write(table_name: str, store: Path, work: Path, out: Path) -> Path:
    """Write the page of a table to the file `out` and return it; it opens from disk and needs no network.

    Args:
        table_name: see `table.build`.
        store: the results, JSON lines; the folders that the runs left are beside it.
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
    run_charts, loss_charts = charts.run_charts(filled), charts.loss_charts(filled, work, notes)
    return {
        "table": filled,
        "provenance": provenance.of_table(filled),
        "protocols": provenance.protocols(filled),
        "published_protocols": provenance.published_protocols(filled),
        "facts": _facts(filled),
        "texts": {name: table.render(filled, format) for name, format in TEXTS.items()},
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
        return [f"{quoted} published results", "nothing measured yet"] if quoted else ["no results yet"]
    days = sorted(run.started[:10] for run in runs)
    return [
        _count(len({run.checkpoint for run in runs}), "checkpoint"),
        _count(len({run.task for run in runs}), "task"),
        _count(len(runs), "evaluation"),
        days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}",
    ]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def render(template: str, context: dict[str, Any], assets: str = "") -> str:
    """A template of the package, filled; every value is escaped unless it is `Markup`.

    Args:
        template: its file name.
        context: its variables; it must use no others.
        assets: the folder of the files of `shared`, relative to the page; empty to write them into the page.
    """
    made = datetime.datetime.now(datetime.UTC)
    return _environment().get_template(template).render({"charts": False, **context, "made": made, "assets": assets})


def shared() -> dict[str, str]:
    """The files that pages share, by name."""
    import plotly.offline

    own = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "page.js", "site.js")}
    return {**own, "plotly.min.js": plotly.offline.get_plotlyjs()}


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = shared()
    environment.globals.update(
        style=Markup(files["style.css"]), script=Markup(files["page.js"]), plotly=Markup(files["plotly.min.js"])
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["label"] = metric_label
    environment.filters["printed"] = published.printed
    return environment


@dataclass(frozen=True)
class Proof:
    """Evidence that some weights arrived where they were evaluated, or kept their outputs when converted."""

    subject: str
    """The run, or the converted file."""
    verdict: str
    details: str


def proofs(runs: Sequence[Result], root: Path, work: Path, notes: list[str]) -> list[Proof]:
    """The proofs of every run inside a framework and of every conversion of these weights below `work`.

    Damaged ones are noted.
    """
    found: list[Proof] = []
    for run in runs:
        path = root / run.work / "loaded.json"
        if run.work and path.is_file():
            with noting(notes, f"{run.task}, seed {run.seed}: {path.name} is damaged"):
                found += _arrival(run, json.loads(path.read_text(encoding="utf-8")))
    weights = {run.checkpoint for run in runs}
    for path in sorted([*work.glob(f"*{CERTIFICATE}"), *work.glob(f"*/*{CERTIFICATE}")]):
        with noting(notes, f"Certificate {path.name} is damaged"):
            found += _conversion(path, json.loads(path.read_text(encoding="utf-8")), weights)
    return found


def _arrival(run: Result, loaded: dict[str, Any]) -> Iterator[Proof]:
    """What the framework counted in its own model."""
    missing = len(loaded.get("missing", [])) + len(loaded.get("unfilled", []))
    short = f", {missing} missing or unfilled" if missing else ""
    verdict = f"{loaded['arrived']} of {loaded['given']} tensors arrived{short}"
    force = loaded.get("in_force", {})
    means = ", ".join(f"{value:.4g}" for value in force.get("mean_std", []))
    prepared = f"{force.get('channel_order', '')}, mean and std {means}" if means else ""
    yield Proof(f"{run.task}, checkpoint {run.checkpoint}, seed {run.seed}", verdict, prepared)


def _conversion(path: Path, certificate: dict[str, Any], weights: set[str]) -> Iterator[Proof]:
    """What the certificate says, if it is of one of the `weights`."""
    if certificate["checkpoint"]["id"] in weights:
        worst = max(certificate.get("stages", []), key=lambda stage: stage["relative"], default=None)
        differs = f"outputs differ by at most {worst['relative']:.0e} ({worst['stage']}); " if worst else ""
        details = f"{differs}{certificate['tensors']} tensors, read back {certificate['read_back']}"
        yield Proof(
            f"{path.name.removesuffix(CERTIFICATE)} for {certificate['target']}", certificate["verdict"], details
        )
