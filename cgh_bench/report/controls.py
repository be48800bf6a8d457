"""Controls under a table: what statistics of the image reach, and which backbones do not beat them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cgh_bench.report.cells import Cell, Column
from cgh_bench.results import Result

CONTROLS = {"control:pixels": "raw pixels", "control:channels": "channel statistics"}
"""Checkpoints without a network, and what they are called."""
MARK = "†"


def measured(column: Column, results: Sequence[Result], data: Mapping[str, str]) -> dict[str, float]:
    """What each control reached in a column, on the same data: `{"raw pixels": 45.2}`."""
    found = {}
    for result in results:
        same = result.protocol == column.protocol and data.get(result.protocol) == result.data
        if same and result.checkpoint_name in CONTROLS and column.metric.name in result.metrics:
            found[CONTROLS[result.checkpoint_name]] = result.metrics[column.metric.name]
    return found


def marked(cell: Cell, column: Column, controls: Mapping[str, float]) -> Cell:
    """The cell, marked if its mean does not beat every control."""
    higher = column.metric.higher_is_better
    if not cell.n or not controls or higher is None:
        return cell
    beats = cell.mean > max(controls.values()) if higher else cell.mean < min(controls.values())
    return cell if beats else replace(cell, mark=MARK)


def notes(columns: Sequence[Column], controls: Sequence[Mapping[str, float]], cells: Iterable[Cell]) -> list[str]:
    """One line for each column that has controls, and what the mark means if one of the `cells` has it."""
    lines = [
        f"Controls, {column.header}: {', '.join(f'{name} {value:.1f}' for name, value in reached.items())}."
        for column, reached in zip(columns, controls, strict=True)
        if reached
    ]
    meaning = [f"{MARK} does not beat the image statistics."] if any(cell.mark == MARK for cell in cells) else []
    return [*lines, *meaning]
