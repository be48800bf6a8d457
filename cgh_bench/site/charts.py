"""Charts as plotly figures in JSON, without a theme: the page gives them its own colours.

`meta` of a trace is the number of a series in the page's colours, or "term" for a term of a loss. The figures are plain
dicts: plotly's classes would check them at 10 ms each, so the tests do that.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench.published import PublishedResult
from cgh_bench.report.cells import Table
from cgh_bench.site.pictures import css_colour
from cgh_bench.tasks.base import Metric, metric_label

VIEWS = {"asymmetric": 1, "symmetric": 2}
"""How often an epoch passes each image through the trained network; multi-crop depends on the crops: not drawn."""
MEASURED = "measured"
MOST_NAMED = 12
"""The most measured points whose names are beside them; names of more are shown on hover."""
POINTS = 240
"""The most points of a loss curve, which is averaged down to them: more cannot be seen."""
NOT_LOSSES = {"step", "epoch", "loss", "lr", "seconds", "images_per_second"}
"""What else is on a line of a log; every other number is a term of the loss."""


@dataclass(frozen=True)
class Chart:
    """A plotly figure and what it shows in words."""

    title: str
    caption: str
    figure: dict[str, Any]
    height: int
    """CSS pixels."""
    sheet: str = ""
    """Small pictures of its points, a data URI of one image; `customdata` of a point is its place there."""


@dataclass(frozen=True)
class Sheet:
    """Small pictures side by side, row by row."""

    uri: str
    side: int
    """Pixels of one."""
    columns: int


@dataclass(frozen=True)
class Point:
    """A result and what its pretraining cost."""

    name: str
    cost: float
    value: float
    kind: str
    """The trace that it belongs to: a key of `VIEWS`, or `MEASURED`."""


@dataclass(frozen=True)
class Log:
    """The columns of the log of one pretraining run, one entry per line."""

    seed: str
    epoch: list[float]
    losses: dict[str, list[float]]
    """`loss` is the total, the others are its terms."""


def literal(text: str) -> str:
    """`text` such that plotly shows it unchanged: it interprets a few HTML tags in names."""
    return html.escape(text, quote=False)


def run_charts(table: Table) -> list[Chart]:
    """One chart per column: a dot for every value, a bar for the mean of each row."""
    charts = []
    for index, column in enumerate(table.columns):
        filled = [(number, row.label, row.cells[index]) for number, row in enumerate(table.rows) if row.cells[index].n]
        if not filled:
            continue
        traces = []
        for number, name, cell in filled:
            label = literal(name)
            dots = {"x": list(cell.values), "y": [label] * cell.n, "mode": "markers", "meta": number}
            hover = "%{x:.2f}<extra></extra>"
            traces.append({"type": "scatter", "name": label, "hovertemplate": hover, **dots})
            bar = {"x": [cell.mean], "y": [label], "mode": "markers", "meta": number, "hoverinfo": "skip"}
            traces.append({"type": "scatter", "marker": {"symbol": "line-ns-open", "size": 22}, **bar})
        words = "; ".join(f"{label} {cell.text()}" for _, label, cell in filled)
        axis = {"categoryorder": "array", "categoryarray": [literal(row.label) for row in reversed(table.rows)]}
        layout = {"yaxis": axis, "showlegend": False}
        charts.append(Chart(column.header, f"{column.header}: {words}.", {"data": traces, "layout": layout}, 150))
    return charts


def cost_chart(results: Sequence[PublishedResult], metric: Metric, measured: Sequence[Point] = ()) -> Chart | None:
    """Published and measured results against epochs times views per epoch, as far as these are known."""
    points = [
        Point(" ".join(filter(None, [each.method, each.detail])), each.epochs * VIEWS[each.cost], each.value, each.cost)
        for each in results
        if each.metric == metric.name and each.epochs and each.cost in VIEWS and not each.deviation
    ]
    axis = {"type": "log", "tickvals": [50, 100, 200, 400, 800, 1600, 3200], "title": {"text": "epochs × views"}}
    return _scatter(f"{metric_label(metric.name)} vs. pretraining cost", [*points, *measured], axis)


def time_chart(metric: Metric, measured: Sequence[Point]) -> Chart | None:
    """Measured results against the minutes that pretraining took."""
    axis = {"title": {"text": "minutes of pretraining"}, "rangemode": "tozero"}
    return _scatter(f"{metric_label(metric.name)} vs. pretraining time", measured, axis)


def _scatter(title: str, points: Sequence[Point], axis: dict[str, Any]) -> Chart | None:
    """A trace for each kind of point; None if all cost the same."""
    if len({point.cost for point in points}) < 2:
        return None
    traces = []
    for kind in dict.fromkeys(point.kind for point in points):
        mine = [point for point in points if point.kind == kind]
        shown = {"x": [round(p.cost, 2) for p in mine], "y": [p.value for p in mine], "mode": "markers"}
        style: dict[str, Any] = {"marker": {"symbol": "star", "size": 13}} if kind == MEASURED else {}
        if kind == MEASURED and len(mine) <= MOST_NAMED:
            style |= {"mode": "markers+text", "textposition": "top center", "cliponaxis": False}
        number = [*VIEWS, MEASURED].index(kind) + 1
        hover = {"text": [literal(p.name) for p in mine], "hovertemplate": "%{text}: %{y:.1f} at %{x}<extra></extra>"}
        traces.append({"type": "scatter", "name": kind, "meta": number, **shown, **hover, **style})
    here = sum(point.kind == MEASURED for point in points)
    counts = {"published": len(points) - here, "measured": here}
    words = " and ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    figure = {"data": traces, "layout": {"xaxis": axis, "showlegend": True}}
    return Chart(title, f"{title}: {words} results.", figure, 360)


def class_chart(title: str, by_class: Mapping[str, float]) -> Chart:
    """A bar for each class, in per cent."""
    names = [literal(name) for name in by_class]
    bars = {"type": "bar", "orientation": "h", "y": names, "x": [round(v, 2) for v in by_class.values()], "meta": 2}
    words = ", ".join(f"{name} {value:.0f}" for name, value in by_class.items())
    layout = {"xaxis": {"rangemode": "tozero"}, "yaxis": {"autorange": "reversed", "nticks": len(names)}}
    figure = {"data": [{**bars, "hovertemplate": "%{y}: %{x:.1f}<extra></extra>"}], "layout": layout}
    return Chart(title, f"{title}: {words}.", figure, 60 + 24 * len(names))


def precision_chart(title: str, recalls: Sequence[float], lines: Mapping[str, Sequence[float]]) -> Chart:
    """Precision at every recall, one line per name."""
    traces = [
        {"type": "scatter", "mode": "lines", "name": name, "x": list(recalls), "y": list(line), "meta": 2 + number}
        for number, (name, line) in enumerate(lines.items())
    ]
    layout = {
        "xaxis": {"title": {"text": "recall"}, "range": [0, 1]},
        "yaxis": {"title": {"text": "precision", "standoff": 12}, "range": [0, 1.02]},
        "showlegend": True,
    }
    words = "; ".join(f"{name}: {line[len(line) // 2]:.2f} at recall 0.5" for name, line in lines.items())
    return Chart(title, f"Mean over classes. Precision at {words}.", {"data": traces, "layout": layout}, 320)


def confusion_chart(title: str, classes: Sequence[str], shares: Sequence[Sequence[float]]) -> Chart:
    """A confusion matrix: rows are true classes and sum to 1, columns are predicted classes."""
    names = [literal(name) for name in classes]
    cells = {"type": "heatmap", "x": names, "y": names, "z": [list(row) for row in shares], "zmin": 0, "zmax": 1}
    hover = {"hovertemplate": "%{y} predicted as %{x}: %{z:.0%}<extra></extra>", "meta": 2}
    layout = {
        "xaxis": {"title": {"text": "predicted class"}, "nticks": len(names)},
        "yaxis": {"title": {"text": "true class", "standoff": 12}, "autorange": "reversed", "nticks": len(names)},
    }
    right = ", ".join(f"{name} {row[i]:.0%}" for i, (name, row) in enumerate(zip(classes, shares, strict=True)))
    caption = f"Share of the pixels of each true class. Correct: {right}."
    return Chart(title, caption, {"data": [{**cells, **hover}], "layout": layout}, 120 + 26 * len(names))


def plane_chart(title: str, plane: NDArray[Any], labels: NDArray[Any], classes: Sequence[str], sheet: Sheet) -> Chart:
    """Points (N, 2) in the colours of their classes, with a picture of each on a sheet; the axes have no meaning."""
    traces = []
    for label in np.unique(labels):
        mine = plane[labels == label]
        name = literal(classes[label])
        marker = {"size": 6, "color": css_colour(int(label))}
        shown = {"x": mine[:, 0].tolist(), "y": mine[:, 1].tolist(), "mode": "markers", "marker": marker}
        shown["customdata"] = np.flatnonzero(labels == label).tolist()
        traces.append({"type": "scatter", "name": name, "meta": 0, "hovertemplate": f"{name}<extra></extra>", **shown})
    hidden = {"visible": False}
    pictures = {"side": sheet.side, "columns": sheet.columns}
    layout = {"xaxis": hidden, "yaxis": hidden, "showlegend": True, "meta": pictures}
    caption = "t-SNE preserves neighbourhoods in feature space; distances between groups have no meaning."
    return Chart(title, caption, {"data": traces, "layout": layout}, 480, sheet.uri)


def loss_charts(table: Table, work: Path, notes: list[str]) -> list[Chart]:
    """One chart for each row of `table` that was pretrained: the total of every seed, the terms of the first."""
    recipes = [(index, row.label, row.definition.recipe) for index, row in enumerate(table.rows)]
    charts = [loss_chart(label, recipe, work, notes, colour=index) for index, label, recipe in recipes if recipe]
    return [chart for chart in charts if chart]


def loss_chart(label: str, recipe: str, work: Path, notes: list[str], colour: int = 2) -> Chart | None:
    """The losses of a recipe's runs below `work`, in the page's series colour `colour`; None if there is no log."""
    folders = sorted((work / "pretrain" / recipe).glob("seed*"), key=lambda folder: (len(folder.name), folder))
    logs = [log for folder in folders if (log := read_log(folder, notes)) is not None]
    if not logs:
        return None
    first = logs[0]
    traces = [
        _line(log, "loss", f"total, seed {log.seed}", {"meta": colour, "opacity": 1 if log is first else 0.45})
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


def read_log(folder: Path, notes: list[str]) -> Log | None:
    """The `log.jsonl` of a pretraining run, averaged to `POINTS` points; None if it has no usable line."""
    path = folder / "log.jsonl"
    lines: list[dict[str, float]] = []
    broken = 0
    for text in _lines(path):
        try:
            line = json.loads(text)
            numbers = {key: float(value) for key, value in line.items() if isinstance(value, int | float)}
        except (ValueError, AttributeError, OverflowError, RecursionError):
            broken += 1
            continue
        finite = {key: value for key, value in numbers.items() if math.isfinite(value)}
        if {"epoch", "loss"} <= finite.keys():
            lines.append(finite)
    if broken:
        notes.append(f"{broken} lines of {folder.parent.name}/{folder.name}/{path.name} skipped: not valid JSON.")
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


def last_seconds(folder: Path) -> float | None:
    """How long a pretraining run took, by the last line of its `log.jsonl`; None if there is none."""
    lines = _lines(folder / "log.jsonl")
    try:
        return float(json.loads(lines[-1])["seconds"]) if lines else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 5) if values else 0.0
