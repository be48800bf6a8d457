"""Where each number comes from, for reading: what all runs of a cell share, and what differs."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgh_bench import published, tasks
from cgh_bench.core.config import plain
from cgh_bench.core.progress import duration
from cgh_bench.report.cells import Cell, Column, Row, Table
from cgh_bench.results import Result
from cgh_bench.tasks.base import Task

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class RunsProvenance:
    """All there is to know about the runs behind a number."""

    shared: Sequence[tuple[str, str]]
    """Facts that all runs have in common."""
    differing: Sequence[str]
    """Names of the facts that differ, in the order of `lines`."""
    lines: Sequence[Sequence[str]]
    """One per run: the metric, then the differing facts."""
    config: Mapping[str, Any]
    """The task's resolved configuration: the protocol id is its fingerprint, so it is the same for all runs."""


@dataclass(frozen=True)
class CellProvenance:
    """One cell of a table and its runs."""

    id: str
    """For links within the page."""
    row: Row
    column: Column
    cell: Cell
    runs: RunsProvenance


@dataclass(frozen=True)
class ProtocolFacts:
    """One task of the table."""

    id: str
    task: str
    summary: str
    """The first paragraph of the task's documentation."""
    headers: Sequence[str]
    """The headers of the columns that it fills."""
    config: Mapping[str, Any]


def of_table(table: Table) -> list[list[CellProvenance]]:
    """The provenance of every cell, row by row."""
    return [
        [
            CellProvenance(f"cell-{r}-{c}", row, column, cell, of_runs(cell.runs, column.metric.name))
            for c, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True))
        ]
        for r, row in enumerate(table.rows)
    ]


def of_runs(runs: Sequence[Result], metric: str) -> RunsProvenance:
    """What the runs behind a number share, what differs, and their configuration, which is the same for all."""
    facts = [_facts(run) for run in runs]
    keys = list(facts[0]) if facts else []
    differing = [key for key in keys if len({fact[key] for fact in facts}) > 1]
    shared = [(key, facts[0][key]) for key in keys if key not in differing]
    lines = [
        [f"{run.metrics[metric]:.2f}", *(fact[key] for key in differing)] for run, fact in zip(runs, facts, strict=True)
    ]
    return RunsProvenance(shared, differing, lines, runs[0].config if runs else {})


def of_checkpoints(runs: Sequence[Result]) -> list[dict[str, str]]:
    """The different weights behind some runs, and where they come from."""
    found = {run.checkpoint: run for run in runs}
    return [
        {
            "Checkpoint": run.checkpoint,
            "Name": run.checkpoint_name,
            **{
                key.capitalize(): str(value)
                for key, value in run.origin.items()
                if key in ("source", "recipe", "seed", "path", "sha256", "reach") and value not in ("", None)
            },
        }
        for run in found.values()
    ]


def _facts(run: Result) -> dict[str, str]:
    """What a reader needs to judge the run or to repeat it."""
    pretraining = run.origin.get("seed")
    return {
        "Checkpoint": run.checkpoint,
        "Proof": str(run.origin.get("reach") or NOT_RECORDED),
        "Pretraining seed": NOT_RECORDED if pretraining is None else str(pretraining),
        "Evaluation seed": str(run.seed),
        "Protocol": run.protocol,
        "Data": run.data,
        "Started": run.started.replace("T", " ").replace("+00:00", " UTC"),
        "Time": duration(run.seconds),
        "Device": run.device or NOT_RECORDED,
        "Code": run.commit or NOT_RECORDED,
        "Versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()) or NOT_RECORDED,
    }


def protocols(table: Table) -> list[ProtocolFacts]:
    """Every protocol of the table, in the order of its columns."""
    found: dict[str, list[Column]] = {}
    for column in table.columns:
        if column.protocol:
            found.setdefault(column.protocol, []).append(column)
    return [_protocol(columns) for columns in found.values()]


def published_protocols(table: Table) -> list[tuple[published.Protocol, list[str]]]:
    """Every published protocol of the table with the headers of its columns."""
    found: dict[str, list[str]] = {}
    for column in table.columns:
        if column.definition.published:
            found.setdefault(column.definition.published, []).append(column.definition.header)
    return [(published.protocols()[name], headers) for name, headers in found.items()]


def _protocol(columns: Sequence[Column]) -> ProtocolFacts:
    name, data = columns[0].definition.task, columns[0].definition.data
    task = tasks.find(name)
    config = plain(task) | ({"data": data} if data else {})
    return ProtocolFacts(columns[0].protocol, name, summary(task), [c.definition.header for c in columns], config)


def summary(task: Task[Any]) -> str:
    """The first paragraph of a task's documentation."""
    return (inspect.getdoc(type(task)) or "").split("\n\n")[0].replace("\n", " ")
