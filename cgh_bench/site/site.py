"""A static site of all results: leaderboards, a page for each backbone, protocol and table, and a comparison.

It opens from disk and needs no network; the charting library is one file that its pages share.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgh_bench import outcomes, published, results
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import write_text, writing_alone
from cgh_bench.report import card, definition, provenance, table
from cgh_bench.report.cells import Cell, Table, newest_data
from cgh_bench.report.resampling import LEAST_IMAGES
from cgh_bench.report.sensitivity import sensitivity
from cgh_bench.report.significance import mean_interval, paired_interval
from cgh_bench.results import Result
from cgh_bench.site import breakdown, charts, page
from cgh_bench.site.boards import Board, Subject, boards, subjects
from cgh_bench.site.charts import MEASURED, VIEWS, Chart, Point
from cgh_bench.site.comparison import comparison
from cgh_bench.site.gallery import gallery
from cgh_bench.site.overview import overview
from cgh_bench.tasks.base import Metric, metric_label


def write(store: Path, work: Path, out: Path) -> Path:
    """Write the site into the folder `out` and return its first page.

    What is damaged is named on its page; the rest is built.

    Args:
        store: the results, JSON lines; the folders that the runs left are beside it.
        work: the workspace with `pretrain/RECIPE/seedK/log.jsonl` and `cache/`.
        out: the folder; files of an earlier site are replaced. Others who write there wait.
    """
    with writing_alone(out):
        return _write_all(store, work, out)


def _write_all(store: Path, work: Path, out: Path) -> Path:
    records, notes = results.read(store)
    known = boards(records)
    measured = subjects(records, known, work)
    for name, text in page.shared().items():
        write_text(out / "assets" / name, text, flush=False)
    tables = [table.build(name, records) for name in definition.names()]
    for filled in tables:
        _write(out / "tables" / f"{filled.definition.name}.html", "page.html", page.context(filled, store.parent, work))
    rows = {board.id: [*_measured_rows(board, measured, store.parent), *_published_rows(board)] for board in known}
    for board in known:
        _write(out / board.href, "protocol.html", _protocol_context(board, rows[board.id], measured, records))
    newest = newest_data(records, {board.ours for board in known if board.ours})
    for subject in measured:
        _write(out / subject.href, "subject.html", _subject_context(subject, known, newest, store.parent, work))
    _write(out / "compare.html", "compare.html", {"data": comparison(measured, known, store.parent, work)})
    index = {
        "tables": _tables(tables),
        "data": _leaderboards(known, rows),
        "notes": [*notes, *(note for subject in measured for note in subject.notes)],
        "facts": _facts(records, measured),
        "costs": published.COSTS,
        "overview": overview(known, measured, store.parent),
    }
    _write(out / "index.html", "index.html", index)
    return out / "index.html"


def _write(path: Path, template: str, context: dict[str, Any]) -> None:
    assets = "assets/" if path.name in ("index.html", "compare.html") else "../assets/"
    write_text(path, page.render(template, context, assets), flush=False)


def _tables(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """What the first page says of each table, those with measured results first."""
    found = []
    for filled in tables:
        cells = [cell for row in filled.rows for cell in row.cells]
        counts = {"measured": sum(cell.n > 0 for cell in cells), "published": sum(bool(c.published) for c in cells)}
        summary = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        found.append({"definition": filled.definition, "measured": counts["measured"], "summary": summary})
    return sorted(found, key=lambda entry: not entry["measured"])


def _facts(records: Sequence[Result], measured: Sequence[Subject]) -> list[str]:
    theirs = published.results()
    return [
        f"{len(records):,} results of {len(measured)} backbones",
        f"{len(theirs):,} published results from {len({each.source.split(' ')[0] for each in theirs})} sources",
        f"{len(published.protocols())} published protocols",
    ]


def _leaderboards(known: Sequence[Board], rows: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the first page filters and sorts; rows of different protocols are never in one list."""
    return {
        "boards": [
            {
                "id": board.id,
                "title": board.title,
                "measured": bool(board.ours),
                "href": board.href,
                "metrics": [_heading(metric) for metric in board.metrics],
                "rows": rows[board.id],
            }
            for board in known
        ]
    }


def _heading(metric: Metric) -> dict[str, Any]:
    label = metric_label(metric.name) + metric.suffix
    return {"name": metric.name, "label": label, "higher": metric.higher_is_better}


def _measured_rows(board: Board, measured: Sequence[Subject], root: Path) -> list[dict[str, Any]]:
    """A row for each backbone, the best first; `values` are mean, deviation or null, number, and `_interval`."""
    rows = []
    for subject in measured:
        cells = {metric.name: subject.cells.get((board.id, metric.name)) for metric in board.metrics}
        values = {
            name: [
                round(cell.mean, 4),
                round(cell.std, 4) if cell.n > 1 else None,
                cell.n,
                _interval(cell, name, root if name == board.metrics[0].name else None),
            ]
            for name, cell in cells.items()
            if cell
        }
        if values:
            made = subject.pretraining
            imported = any(run.imported for cell in cells.values() if cell for run in cell.runs)
            row = {"kind": "measured", "name": subject.label, "detail": "", "epochs": made.epochs}
            more = {"note": "imported" if imported else "", "href": subject.href, "source": "", "place": "measured"}
            first = next(cell for cell in cells.values() if cell).runs[0]
            costs = {"minutes": made.minutes, "parameters": subject.parameters, **_measured_cost(first)}
            rows.append({**row, **_cost(made.cost), **costs, **more, "values": values})
    main, sign = board.metrics[0], 1 if board.metrics[0].higher_is_better is False else -1
    return sorted(rows, key=lambda row: sign * row["values"].get(main.name, [sign * math.inf])[0])


def _measured_cost(run: Result) -> dict[str, Any]:
    """FLOPs of one image, milliseconds for it, and on what; null where they were not measured."""
    rate = run.cost.get("images_per_second")
    return {"flops": run.cost.get("flops"), "speed": rate and round(1000 / rate, 4), "device": rate and run.device}


def _interval(cell: Cell, metric: str, root: Path | None) -> list[Any] | None:
    """The 95 % interval of a mean and over what: its seeds; or the images, if one run left answers below `root`."""
    if cell.n > 1:
        low, high = mean_interval(cell.values)
        return [round(low, 3), round(high, 3), f"{cell.n} {cell.replicate}s"]
    run = cell.runs[0]
    if root is None or not (root / run.work / outcomes.FILE).is_file():
        return None
    try:
        kept = outcomes.load(root / run.work)
    except UserError:
        return None  # the page of the backbone says that it is damaged
    each = kept.each(metric) if metric in kept.measures else None
    if each is None or len(each) < LEAST_IMAGES:
        return None
    _, low, high = paired_interval(each)
    return [round(low, 3), round(high, 3), f"{len(each):,} images"]


def _published_rows(board: Board) -> list[dict[str, Any]]:
    if board.published is None:
        return []
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each in published.select(board.published.name):
        key = (*each.variant, each.cost, each.deviation, each.source)
        if key not in rows:
            row = {"kind": "published", "name": each.method, "detail": each.detail, "epochs": each.epochs}
            url, _, where = each.source.partition(" ")
            more = {"note": each.deviation, "href": "", "source": url, "place": f"{each.place} {where}".strip()}
            rows[key] = {**row, **_cost(each.cost), **more, "values": {}}
        rows[key]["values"][each.metric] = [each.value, None, 0, None]
    return list(rows.values())


def _cost(cost: str) -> dict[str, str]:
    return {"cost": cost, "views": published.COSTS[cost]}


def _protocol_context(
    board: Board, rows: list[dict[str, Any]], measured: Sequence[Subject], records: Sequence[Result]
) -> dict[str, Any]:
    theirs = published.select(board.published.name) if board.published else []
    drawn = _cost_charts(board, board.metrics[0], theirs, measured)
    return {
        "board": board,
        "headings": [_heading(metric) for metric in board.metrics],
        "rows": rows,
        "conflicts": published.conflicts(theirs),
        "sensitivity": sensitivity(records, board.ours, board.metrics[0]),
        "unread": published.unread(board.published.name) if board.published else [],
        "drawn": drawn,
        "charts": bool(drawn),
    }


def _cost_charts(
    board: Board, metric: Metric, theirs: Sequence[published.PublishedResult], measured: Sequence[Subject]
) -> list[Chart]:
    by_views, by_minutes = [], []
    for subject in measured:
        cell, made = subject.cells.get((board.id, metric.name)), subject.pretraining
        if cell and made.epochs and made.cost in VIEWS:
            by_views.append(Point(subject.label, made.epochs * VIEWS[made.cost], cell.mean, MEASURED))
        if cell and made.minutes is not None:
            by_minutes.append(Point(subject.label, made.minutes, cell.mean, MEASURED))
    both = charts.cost_chart(theirs, metric, by_views), charts.time_chart(metric, by_minutes)
    return [chart for chart in both if chart]


def _subject_context(
    subject: Subject, known: Sequence[Board], newest: Mapping[str, str], root: Path, work: Path
) -> dict[str, Any]:
    notes = list(subject.notes)
    by_board = {board.id: board for board in known}
    sections: dict[str, list[tuple[str, Cell, provenance.RunsProvenance]]] = {}
    for (board, metric), cell in subject.cells.items():
        sections.setdefault(board, []).append((metric, cell, provenance.of_runs(cell.runs, metric)))
    first = subject.first_runs
    loss = charts.loss_chart(subject.label, subject.recipe, work, notes) if subject.recipe else None
    drawn: list[Chart] = []
    for board, run in first.items():
        # Tasks on the same features have the same projection.
        drawn += [c for c in breakdown.draw(run, by_board[board].task, root, work, notes) if c not in drawn]
    found = card.measured(subject.results, newest) if subject.cells else []
    counted = {id(run) for cell in subject.cells.values() for run in cell.runs}
    return {
        "subject": subject,
        "costs": published.COSTS,
        "sections": [(by_board[board], entries) for board, entries in sections.items()],
        "others": [run for run in subject.results if id(run) not in counted],
        "checkpoints": provenance.of_checkpoints(subject.results),
        "proofs": page.proofs([run for run in subject.results if id(run) in counted], root, work, notes),
        "loss": loss,
        "drawn": drawn,
        "charts": bool(loss or drawn),
        "gallery": gallery([[(subject.label, run)] for run in first.values()], root, work, notes),
        "methods": card.methods(found) if found else "",
        "bibtex": card.bibtex(found) if found else "",
        "notes": notes,
    }
