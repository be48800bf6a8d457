"""The losses of pretraining runs as charts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgh_bench.report.cells import Table
from cgh_bench.site.charts import Chart, literal

POINTS = 240
"""A curve is averaged down to at most so many points: more than this cannot be seen, and weighs."""
NOT_LOSSES = {"step", "epoch", "loss", "lr", "seconds", "images_per_second"}
"""What else is on a log line; every other number is a term of the loss."""


@dataclass(frozen=True)
class Log:
    """One pretraining run: columns of its log, one entry per line."""

    seed: str
    epoch: list[float]
    losses: dict[str, list[float]]
    """`loss` is the total, the others its terms."""


def loss_charts(table: Table, work: Path, notes: list[str]) -> list[Chart]:
    """One chart for each row of `table` that was trained: the total of every seed, the terms of the first."""
    charts = []
    for index, row in enumerate(table.rows):
        recipe = row.definition.recipe
        chart = loss_chart(row.label, recipe, work, notes, colour=index) if recipe else None
        if chart:
            charts.append(chart)
    return charts


def loss_chart(label: str, recipe: str, work: Path, notes: list[str], colour: int = 2) -> Chart | None:
    """The losses of a recipe's runs below `work`, in the page's series colour `colour`; None where there is no log."""
    folders = sorted((work / "pretrain" / recipe).glob("seed*"), key=lambda folder: (len(folder.name), folder))
    logs = [log for folder in folders if (log := read_log(folder, notes)) is not None]
    return _loss_chart(label, colour, logs) if logs else None


def read_log(folder: Path, notes: list[str]) -> Log | None:
    """The `log.jsonl` of a pretraining run, averaged to `POINTS` points; None where it has no usable line."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return None
    lines: list[dict[str, float]] = []
    broken = 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            lines.append({key: float(value) for key, value in line.items() if isinstance(value, int | float)})
            if not {"epoch", "loss"} <= lines[-1].keys():
                lines.pop()
        except (ValueError, AttributeError, OverflowError, RecursionError):
            broken += 1
    if broken:
        notes.append(f"{broken} lines of {folder.parent.name}/{folder.name}/{path.name} are no JSON and were left out.")
    if not lines:
        return None
    names = ["loss", *(name for name in dict.fromkeys(key for line in lines for key in line) if name not in NOT_LOSSES)]
    size = -(-len(lines) // POINTS)
    groups = [lines[start : start + size] for start in range(0, len(lines), size)]
    return Log(
        folder.name.removeprefix("seed"),
        [round(group[-1]["epoch"], 4) for group in groups],
        {name: [_mean([line[name] for line in group if name in line]) for group in groups] for name in names},
    )


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 5) if values else 0.0


def _loss_chart(label: str, index: int, logs: Sequence[Log]) -> Chart:
    first = logs[0]
    traces = [
        _line(log, "loss", f"total, seed {log.seed}", {"meta": index, "opacity": 1 if log is first else 0.45})
        for log in logs
    ]
    terms = [name for name in first.losses if name != "loss"]
    if len(terms) > 1:  # a single term is the total
        traces += [_line(first, name, name, {"meta": "term", "line": {"width": 1.25, "dash": "dot"}}) for name in terms]
    seeds = f"{len(logs)} seed{'s' if len(logs) > 1 else ''}"
    total = first.losses["loss"]
    caption = f"{label}: {total[0]:.2f} at the start, {total[-1]:.2f} after {first.epoch[-1]:.0f} epochs; {seeds}."
    layout = {"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"rangemode": "tozero"}, "showlegend": True}
    return Chart(label, caption, {"data": traces, "layout": layout}, 320)


def _line(log: Log, name: str, label: str, style: dict[str, Any]) -> dict[str, Any]:
    trace = {"type": "scatter", "mode": "lines", "x": log.epoch, "y": log.losses[name], "name": literal(label)}
    return {**trace, "hovertemplate": "epoch %{x:.1f}: %{y:.3f}", **style}


def last_seconds(folder: Path) -> float | None:
    """How long a pretraining run took, as the last line of its `log.jsonl` says; None where there is none."""
    path = folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    try:
        return float(json.loads(lines[-1])["seconds"]) if lines else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
