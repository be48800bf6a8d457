"""Charts as plotly figures without a theme; the page gives them its own colours.

`meta` of a trace is the number of a series in the page's colours, or "term" for a term of a loss.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench.published import Figure
from cgh_bench.report.cells import Table
from cgh_bench.site.pictures import css_colour
from cgh_bench.tasks import Metric


@dataclass(frozen=True)
class Chart:
    """A plotly figure and what it says in words."""

    title: str
    caption: str
    figure: dict[str, Any]
    height: int
    """CSS pixels."""


def literal(text: str) -> str:
    """`text` as plotly shows it unchanged: it reads a few HTML tags in names."""
    return html.escape(text, quote=False)


def run_charts(table: Table) -> list[Chart]:
    """One chart for each column: a dot for every value, a bar for the mean of each row."""
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


PASSES = {"asymmetric": 1, "symmetric": 2}
"""How often an epoch takes each image through the trained network; multi-crop depends on the crops and is not drawn."""
MEASURED = "measured here"
MOST_NAMED = 12
"""Measured points with their names beside them; of more, names are told where one points."""


@dataclass(frozen=True)
class Point:
    """A figure and what its pretraining cost."""

    name: str
    cost: float
    value: float
    kind: str
    """The trace that it belongs to."""


def cost_chart(figures: Sequence[Figure], metric: Metric, measured: Sequence[Point] = ()) -> Chart | None:
    """Figures, published and measured, against the passes of an epoch times the epochs; of those where it is known."""
    points = [
        Point(" ".join(filter(None, [f.method, f.detail])), f.epochs * PASSES[f.cost], f.value, f.cost)
        for f in figures
        if f.metric == metric.name and f.epochs and f.cost in PASSES and not f.deviation
    ]
    title = "epochs × passes of each image through the trained network"
    axis = {"type": "log", "tickvals": [50, 100, 200, 400, 800, 1600, 3200]}
    return _scatter(f"{metric.name} and cost", [*points, *measured], {**axis, "title": {"text": title}})


def time_chart(metric: Metric, measured: Sequence[Point]) -> Chart | None:
    """Measured figures against the minutes that pretraining took."""
    axis = {"title": {"text": "minutes of pretraining"}, "rangemode": "tozero"}
    return _scatter(f"{metric.name} and time", measured, axis)


def _scatter(title: str, points: Sequence[Point], axis: dict[str, Any]) -> Chart | None:
    """A trace for each kind of point; None where all cost the same."""
    if len({point.cost for point in points}) < 2:
        return None
    traces = []
    for kind in dict.fromkeys(point.kind for point in points):
        mine = [point for point in points if point.kind == kind]
        shown = {"x": [round(p.cost, 2) for p in mine], "y": [p.value for p in mine], "mode": "markers"}
        style: dict[str, Any] = {"marker": {"symbol": "star", "size": 13}} if kind == MEASURED else {}
        if kind == MEASURED and len(mine) <= MOST_NAMED:
            style |= {"mode": "markers+text", "textposition": "top center", "cliponaxis": False}
        number = [*PASSES, MEASURED].index(kind) + 1
        hover = {"text": [literal(p.name) for p in mine], "hovertemplate": "%{text}: %{y:.1f} at %{x}<extra></extra>"}
        traces.append({"type": "scatter", "name": kind, "meta": number, **shown, **hover, **style})
    here = sum(point.kind == MEASURED for point in points)
    told = f"{len(points) - here} published and {here} measured" if here < len(points) else f"{here} measured"
    caption = f"{title}: {told} figures."
    return Chart(title, caption, {"data": traces, "layout": {"xaxis": axis, "showlegend": True}}, 360)


def class_chart(title: str, by_class: Mapping[str, float]) -> Chart:
    """A bar for each class, in per cent."""
    names = [literal(name) for name in by_class]
    bars = {"type": "bar", "orientation": "h", "y": names, "x": [round(v, 2) for v in by_class.values()], "meta": 2}
    words = ", ".join(f"{name} {value:.0f}" for name, value in by_class.items())
    layout = {"xaxis": {"rangemode": "tozero"}, "yaxis": {"autorange": "reversed", "nticks": len(names)}}
    figure = {"data": [{**bars, "hovertemplate": "%{y}: %{x:.1f}<extra></extra>"}], "layout": layout}
    return Chart(title, f"{title}: {words}.", figure, 60 + 24 * len(names))


def precision_chart(title: str, recalls: Sequence[float], lines: Mapping[str, Sequence[float]]) -> Chart:
    """Precision at every recall, a line for each name."""
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
    """Rows are true classes, columns given ones; a row sums to 1."""
    names = [literal(name) for name in classes]
    cells = {"type": "heatmap", "x": names, "y": names, "z": [list(row) for row in shares], "zmin": 0, "zmax": 1}
    hover = {"hovertemplate": "%{y} given %{x}: %{z:.0%}<extra></extra>", "meta": 2}
    layout = {
        "xaxis": {"title": {"text": "given"}, "nticks": len(names)},
        "yaxis": {"title": {"text": "true", "standoff": 12}, "autorange": "reversed", "nticks": len(names)},
    }
    right = ", ".join(f"{name} {row[i]:.0%}" for i, (name, row) in enumerate(zip(classes, shares, strict=True)))
    caption = f"Each row is shared out among the classes that its pixels were given. Right: {right}."
    return Chart(title, caption, {"data": [{**cells, **hover}], "layout": layout}, 120 + 26 * len(names))


def plane_chart(title: str, plane: NDArray[Any], labels: NDArray[Any], classes: Sequence[str]) -> Chart:
    """Points (N, 2) in the colours of their classes; the axes mean nothing."""
    traces = []
    for label in np.unique(labels):
        mine = plane[labels == label]
        name = literal(classes[label])
        marker = {"size": 6, "color": css_colour(int(label))}
        shown = {"x": mine[:, 0].tolist(), "y": mine[:, 1].tolist(), "mode": "markers", "marker": marker}
        traces.append({"type": "scatter", "name": name, "meta": 0, "hovertemplate": f"{name}<extra></extra>", **shown})
    hidden = {"visible": False}
    layout = {"xaxis": hidden, "yaxis": hidden, "showlegend": True}
    caption = "Neighbours in feature space are neighbours here (t-SNE); distances between far groups mean nothing."
    return Chart(title, caption, {"data": traces, "layout": layout}, 480)
