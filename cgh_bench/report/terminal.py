"""What the terminal says of a single result, and of published figures."""

import sys
from collections.abc import Sequence

import rich.box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cgh_bench import published, tasks
from cgh_bench.core.registry import registered
from cgh_bench.published import Figure
from cgh_bench.results import Result

WIDTH_OF_FILES = 1000
"""Columns of what is not shown on a terminal: more than any line has."""


def show_result(result: Result, *, reused: bool = False, console: Console | None = None) -> None:
    """One line: the task, the seed, its declared metrics in their order, and how long it took or that it was known."""
    line = Text(f"{result.task}, seed {result.seed}: ")
    for number, metric in enumerate(tasks.find(result.task).METRICS):
        unit = "" if metric.unit == "%" else f" {metric.unit}"
        line.append(("  " if number else "") + f"{metric.name} ")
        line.append(f"{result.metrics[metric.name]:.2f}{unit}", "" if number else "bold")
    line.append("  reused" if reused else f"  {result.seconds:.1f} s", "dim")
    (console or Console(highlight=False)).print(line)


def show_results(numbered: Sequence[tuple[int, Result]], console: Console | None = None) -> None:
    """Each result: its number in the store, what of what, the main metric, and what sets it apart.

    A line each, or two where the terminal is too narrow for that; a file or a pipe gets lines of any length.
    """
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
    drawn = Table("", "protocol", "checkpoint", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for header in ("seed", "figure"):
        drawn.add_column(header, justify="right", no_wrap=True)
    drawn.add_column("started", no_wrap=True)
    rows = [_cells(number, result) for number, result in numbered]
    for row in rows:
        drawn.add_row(*row)
    if console.measure(drawn, options=console.options.update(max_width=WIDTH_OF_FILES)).maximum <= console.width:
        console.print(drawn)
        return
    for number, protocol, checkpoint, seed, figure, started in rows:
        console.print(Text.assemble(number, " ", protocol, f", seed {seed}: ", (figure, "bold")))
        console.print(Padding(Text.assemble((f"{started}  ", "dim"), checkpoint), (0, 0, 0, len(number) + 1)))


def _cells(number: int, result: Result) -> tuple[str, Text, Text, str, str, str]:
    metric, value = next(iter(_declared_first(result).items()), ("", float("nan")))
    marks = ["imported"] * result.imported + [f"overridden: {', '.join(result.overridden)}"] * bool(result.overridden)
    return (
        str(number),
        Text(result.protocol if not result.imported else f"{result.task} {result.protocol}"),
        Text("\n").join([Text(result.checkpoint_name), *(Text(mark, "dim") for mark in marks)]),
        str(result.seed),
        f"{metric} {value:.2f}",
        result.started[:16].replace("T", " "),
    )


def _declared_first(result: Result) -> dict[str, float]:
    """The metrics, those that the task declares first; a task that is no longer known declares none."""
    known = registered("cgh_bench.tasks", "TASKS").get(result.task)
    first = [metric.name for metric in known.METRICS if metric.name in result.metrics] if known else []
    return {name: result.metrics[name] for name in [*first, *result.metrics]}


def show_published(protocol: str = "", method: str = "", console: Console | None = None) -> None:
    """The published figures of a protocol, of a method, or of both; of neither, what protocols there are.

    Raises:
        UserError: nothing is known by that name; the nearest names are given.
    """
    console = console or Console(highlight=False)
    if not protocol and not method:
        return _show_protocols(console)
    chosen = published.select(protocol, method)
    for name in dict.fromkeys(figure.protocol for figure in chosen):
        _show_protocol(published.protocols()[name], [figure for figure in chosen if figure.protocol == name], console)
    for conflict in published.conflicts(chosen):
        values = ", ".join(f"{figure.text} ({_place(figure)})" for figure in conflict.figures)
        console.print(
            Text(f"sources differ: {conflict.protocol}, {_variant(conflict.figures[0])}, {conflict.metric}: {values}")
        )
    return None


def _show_protocols(console: Console) -> None:
    drawn = Table("protocol", "figures", "", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name, protocol in published.protocols().items():
        drawn.add_row(name, str(len(published.select(name))), Text(protocol.title))
    console.print(drawn)


def _show_protocol(protocol: published.Protocol, figures: list[Figure], console: Console) -> None:
    console.print(Text(protocol.title, "bold"), Text(protocol.note), sep="\n")
    if protocol.spread:
        spread = ", ".join(f"{metric} {value:g}" for metric, value in protocol.spread.items())
        console.print(Text(f"standard deviation between runs: {spread}; {protocol.spread_source}"))
    metrics = list(dict.fromkeys(figure.metric for figure in figures))
    drawn = Table("method", "cost", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for metric in metrics:
        drawn.add_column(metric, justify="right", no_wrap=True)
    drawn.add_column("source")
    rows: dict[tuple[object, ...], dict[str, str]] = {}
    for figure in figures:
        key = (_variant(figure), figure.cost, figure.deviation, _place(figure))
        rows.setdefault(key, {})[figure.metric] = figure.text
    for (variant, cost, deviation, place), values in rows.items():
        name = Text.assemble(str(variant), (f"\n{deviation}" if deviation else "", "dim"))
        drawn.add_row(name, str(cost), *(values.get(metric, "") for metric in metrics), Text(str(place), "dim"))
    console.print(drawn)


def _variant(figure: Figure) -> str:
    detail = f" ({figure.detail})" if figure.detail else ""
    return f"{figure.method}{detail}" + ("" if figure.epochs is None else f", {figure.epochs} ep")


def _place(figure: Figure) -> str:
    """The repository or site of a source, short."""
    parts = figure.source.split("/")
    return "/".join(parts[3:5]) if parts[2] == "github.com" else parts[2]
