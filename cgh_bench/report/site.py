"""A static site of all results: leaderboards by protocol, a page for each subject, protocol and table, a comparison.

It opens from disk and asks nothing of the network; the charting library is one file that its pages share.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgh_bench import evaluate, published, results, tasks
from cgh_bench.config import plain
from cgh_bench.discovery import registered
from cgh_bench.files import write_text
from cgh_bench.report import aggregate, curves, definition, page, provenance, table
from cgh_bench.report.cells import Cell
from cgh_bench.report.gallery import gallery
from cgh_bench.report.rendering import render, shared
from cgh_bench.report.significance import CONFIDENCE
from cgh_bench.results import Result
from cgh_bench.tasks import Metric

MOST_FREEDOM = 200
"""The comparison's table of Student's t goes up to so many degrees of freedom; beyond, it hardly changes."""


@dataclass(frozen=True)
class Board:
    """One protocol, with everything that may stand in its columns."""

    id: str
    title: str
    summary: str
    metrics: tuple[Metric, ...]
    ours: str
    """Our protocol id; empty for a published protocol that no task of ours follows."""
    published: published.Protocol | None
    config: Any
    """The resolved configuration of our task."""

    @property
    def href(self) -> str:
        """Of its page."""
        return f"protocols/{slug(self.id)}.html"


@dataclass(frozen=True)
class Subject:
    """What is measured: a recipe with all its trainings, or a single checkpoint that no recipe of ours trained."""

    label: str
    recipe: str
    results: tuple[Result, ...]
    cells: dict[tuple[str, str], Cell]
    """By board and metric."""

    @property
    def href(self) -> str:
        """Of its page."""
        return f"checkpoints/{slug(self.label)}.html"


def write(store: Path, work: Path, out: Path) -> Path:
    """Write the site into the folder `out` and return its first page.

    Args:
        store: the results, JSON lines; side products of the runs are in the folders beside it.
        work: the workspace with `pretrain/RECIPE/seedK/log.jsonl` and `cache/`.
        out: the folder; files of an earlier site are replaced.
    """
    records, complaints = results.read(store)
    boards = _boards(records)
    notes = list(complaints)
    subjects = _subjects(records, boards, notes)
    for name, text in shared().items():
        write_text(out / "assets" / name, text, flush=False)
    for name in definition.names():
        context = page.context(table.build(name, records), store.parent, work)
        _write(out / "tables" / f"{name}.html", "page.html", context)
    for board in boards:
        _write(out / board.href, "protocol.html", _protocol_context(board, subjects))
    for subject in subjects:
        _write(out / subject.href, "subject.html", _subject_context(subject, boards, store.parent, work))
    _write(out / "compare.html", "compare.html", {"data": _comparison(subjects, boards)})
    tables = [definition.load(name) for name in definition.names()]
    index = {
        "tables": tables,
        "data": _leaderboards(boards, subjects),
        "notes": notes,
        "facts": _facts(records, subjects),
    }
    _write(out / "index.html", "index.html", index)
    return out / "index.html"


def _write(path: Path, template: str, context: dict[str, Any]) -> None:
    assets = "assets/" if path.name in ("index.html", "compare.html") else "../assets/"
    write_text(path, render(template, context, assets), flush=False)


def slug(name: str) -> str:
    """A file name for `name`: itself where it is plain, else what is plain of it with a digest."""
    clean = re.sub(r"[^A-Za-z0-9._@-]+", "-", name)[:60].strip(".-")
    return clean if clean == name else f"{clean}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _boards(records: Iterable[Result]) -> list[Board]:
    """Today's protocols of all tasks that have results, and every published protocol."""
    measured = {record.protocol for record in records if not record.overridden}
    boards = []
    followed = set()
    registry: dict[str, tasks.Task] = registered("cgh_bench.tasks", "TASKS")
    for name, task in registry.items():
        if (ours := evaluate.protocol_id(name, task)) not in measured:
            continue
        theirs = next((p for p in published.protocols().values() if name in p.tasks), None)
        followed.add(theirs.name if theirs else "")
        summary = provenance.summary(task)
        boards.append(Board(ours, theirs.title if theirs else name, summary, task.METRICS, ours, theirs, plain(task)))
    for protocol in published.protocols().values():
        if protocol.name not in followed:
            metrics = dict.fromkeys(figure.metric for figure in published.select(protocol.name))
            declared = tuple(Metric(name) for name in metrics)
            boards.append(Board(protocol.name, protocol.title, "", declared, "", protocol, None))
    return boards


def _subjects(records: Sequence[Result], boards: Sequence[Board], notes: list[str]) -> list[Subject]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for record in records:
        recipe = str(record.origin.get("recipe") or "")
        groups.setdefault((recipe, recipe or f"{record.checkpoint_name} {record.checkpoint}"), []).append(record)
    data = aggregate.newest_data(records, {board.ours for board in boards if board.ours})
    subjects = []
    for (recipe, label), mine in groups.items():
        usable = aggregate.usable(mine, data, label, notes)
        cells = {
            (board.id, metric.name): cell
            for board in boards
            for metric in board.metrics
            if board.ours and (cell := aggregate.cell(usable, board.ours, metric.name)).n
        }
        subjects.append(Subject(label, recipe, tuple(mine), cells))
    return subjects


def _facts(records: Sequence[Result], subjects: Sequence[Subject]) -> list[str]:
    figures = published.figures()
    return [
        f"{len(records):,} results of {len(subjects)} backbones",
        f"{len(figures):,} published figures from {len({figure.source.split(' ')[0] for figure in figures})} sources",
        f"{len(published.protocols())} published protocols",
    ]


def _leaderboards(boards: Sequence[Board], subjects: Sequence[Subject]) -> dict[str, Any]:
    """What the first page filters and sorts; rows of different protocols are never in one list."""
    return {
        "boards": [
            {
                "id": board.id,
                "title": board.title,
                "measured": bool(board.ours),
                "href": board.href,
                "metrics": [{"name": m.name, "unit": m.unit, "higher": m.higher_is_better} for m in board.metrics],
                "rows": [*_measured_rows(board, subjects), *_published_rows(board)],
            }
            for board in boards
        ]
    }


def _measured_rows(board: Board, subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    rows = []
    for subject in subjects:
        cells = {metric.name: subject.cells.get((board.id, metric.name)) for metric in board.metrics}
        values = {name: [cell.mean, cell.std if cell.n > 1 else None, cell.n] for name, cell in cells.items() if cell}
        if values:
            row = {"kind": "measured", "name": subject.label, "detail": "", "epochs": None, "cost": "", "note": ""}
            rows.append({**row, "href": subject.href, "source": "", "values": values})
    return rows


def _published_rows(board: Board) -> list[dict[str, Any]]:
    if board.published is None:
        return []
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for figure in published.select(board.published.name):
        key = (*figure.variant, figure.cost, figure.deviation, figure.source)
        if key not in rows:
            row = {"kind": "published", "name": figure.method, "detail": figure.detail, "epochs": figure.epochs}
            more = {"cost": figure.cost, "note": figure.deviation, "href": "", "source": figure.source}
            rows[key] = {**row, **more, "values": {}}
        rows[key]["values"][figure.metric] = [figure.value, None, 0]
    return list(rows.values())


def _protocol_context(board: Board, subjects: Sequence[Subject]) -> dict[str, Any]:
    rows = [*_measured_rows(board, subjects), *_published_rows(board)]
    conflicts = published.conflicts(published.select(board.published.name)) if board.published else []
    chart = curves.cost_chart(published.select(board.published.name), board.metrics) if board.published else None
    return {"board": board, "rows": rows, "conflicts": conflicts, "chart": chart, "charts": chart is not None}


def _subject_context(subject: Subject, boards: Sequence[Board], root: Path, work: Path) -> dict[str, Any]:
    notes: list[str] = []
    by_board = {board.id: board for board in boards}
    sections = [
        (by_board[board], metric, cell, provenance.of_runs(cell.runs, metric))
        for (board, metric), cell in subject.cells.items()
    ]
    first_runs = {cell.runs[0].protocol: cell.runs[0] for _, _, cell, _ in sections}
    chart = curves.loss_chart(subject.label, subject.recipe, work, notes) if subject.recipe else None
    return {
        "subject": subject,
        "sections": sections,
        "checkpoints": provenance.of_checkpoints(subject.results),
        "chart": chart,
        "charts": chart is not None,
        "gallery": gallery([[(subject.label, run)] for run in first_runs.values()], root, work, notes),
        "notes": notes,
    }


def _comparison(subjects: Sequence[Subject], boards: Sequence[Board]) -> dict[str, Any]:
    """The values of every subject, and what the page needs to compute Welch's intervals of their differences."""
    from scipy.stats import t

    tail = (1 + CONFIDENCE) / 2
    return {
        "student": [round(float(t.ppf(tail, freedom)), 4) for freedom in range(1, MOST_FREEDOM + 1)],
        "boards": {
            board.id: {"title": board.title, "metrics": {m.name: m.higher_is_better for m in board.metrics}}
            for board in boards
            if board.ours
        },
        "subjects": [
            {
                "label": subject.label,
                "cells": [
                    {"board": board, "metric": metric, "values": list(cell.values), "replicate": cell.replicate}
                    for (board, metric), cell in subject.cells.items()
                ],
            }
            for subject in subjects
            if subject.cells
        ],
    }
