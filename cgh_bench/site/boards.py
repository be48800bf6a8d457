"""What a site shows: protocols with all results under them, and the backbones that were measured."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cgh_bench import published, tasks
from cgh_bench.core.config import override, plain
from cgh_bench.core.registry import registered
from cgh_bench.evaluation import protocol_id
from cgh_bench.published import Protocol as PublishedProtocol
from cgh_bench.report import cells, definition, provenance
from cgh_bench.report.cells import Cell
from cgh_bench.results import Result
from cgh_bench.site.charts import last_seconds
from cgh_bench.site.truth import noting
from cgh_bench.tasks.base import Metric, Task


@dataclass(frozen=True)
class Board:
    """One protocol, with all its results."""

    id: str
    title: str
    metrics: tuple[Metric, ...]
    task: Task[Any] | None
    """Our task; None for a published protocol without results of a task of ours."""
    published: PublishedProtocol | None

    @property
    def ours(self) -> str:
        """Our protocol id, or empty."""
        return self.id if self.task else ""

    @property
    def summary(self) -> str:
        """What our task does."""
        return provenance.summary(self.task) if self.task else ""

    @property
    def config(self) -> Any:
        """The resolved configuration of our task."""
        return plain(self.task) if self.task else None

    @property
    def href(self) -> str:
        """The path of its page."""
        return f"protocols/{slug(self.id)}.html"

    @property
    def lookalikes(self) -> list[PublishedProtocol]:
        """Published protocols that look like the same experiment, with which it must not be compared."""
        mine = self.published
        return [p for p in published.protocols().values() if mine and p.family == mine.family and p.name != mine.name]


@dataclass(frozen=True)
class Pretraining:
    """What is known of how some weights were trained."""

    epochs: int | None = None
    cost: str = ""
    """See `PublishedResult.cost`."""
    minutes: float | None = None
    """Wall clock on the machine where it ran, the mean over seeds."""


@dataclass(frozen=True)
class Subject:
    """A measured backbone: a recipe with all its trainings, or a single checkpoint not trained by a recipe of ours."""

    label: str
    recipe: str
    pretraining: Pretraining
    results: tuple[Result, ...]
    cells: dict[tuple[str, str], Cell]
    """The cell of each board and metric."""
    notes: tuple[str, ...]
    """Which results were left out, and what is damaged."""

    @property
    def href(self) -> str:
        """The path of its page."""
        return f"checkpoints/{slug(self.label)}.html"

    @property
    def parameters(self) -> int | None:
        """How many the network has; None if its results were measured before that was recorded."""
        known = {run.origin.get("parameters") for run in self.results}
        return known.pop() if len(known) == 1 else None

    @property
    def first_runs(self) -> dict[str, Result]:
        """For each board, the first run that counts: the one whose pictures are shown."""
        first: dict[str, Result] = {}
        for (board, _), cell in self.cells.items():
            first.setdefault(board, cell.runs[0])
        return first


def slug(name: str) -> str:
    """A file name for `name`: itself if it is plain, else its plain characters with a digest."""
    clean = re.sub(r"[^A-Za-z0-9._@-]+", "-", name)[:60].strip(".-")
    return clean if clean == name else f"{clean}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def boards(records: Iterable[Result]) -> list[Board]:
    """The current protocols of tasks with results, by their first results, and every published protocol."""
    registry: dict[str, Task[Any]] = registered("cgh_bench.tasks", "TASKS")
    measured: dict[str, tuple[str, Task[Any]]] = {}
    for record in records:
        if record.overridden or record.subset or record.protocol in measured or record.task not in registry:
            continue
        if task := _current(record):
            measured[record.protocol] = record.task, task
    found = []
    for protocol, (name, task) in measured.items():
        own = task.data != registry[name].data
        theirs = None if own else _published(name, task)
        title = f"{theirs.title}, {name}" if theirs and len(theirs.tasks) > 1 else theirs.title if theirs else name
        found.append(Board(protocol, title + f" on {task.data}" * own, task.METRICS, task, theirs))
    followed = {board.published.name for board in found if board.published}
    for theirs in published.protocols().values():
        if theirs.name not in followed:
            names = dict.fromkeys(each.metric for each in published.select(theirs.name))
            metrics = tuple(definition.published_metric(theirs, each) for each in names)
            found.append(Board(theirs.name, theirs.title, metrics, None, theirs))
    return found


def _published(name: str, task: Task[Any]) -> PublishedProtocol | None:
    """The published protocol that a task follows, if it has results in a metric of the task."""
    metrics = {metric.name for metric in task.METRICS}
    for protocol in published.protocols().values():
        if name in protocol.tasks and any(each.metric in metrics for each in published.select(protocol.name)):
            return protocol
    return None


def _current(record: Result) -> Task[Any] | None:
    """The task of a record, unless its protocol has changed since; what a task leaves open is the record's."""
    known = tasks.find(record.task)
    given = ((field, record.config.get(field)) for field in known.open_fields(str(record.config.get("data") or "")))
    texts = ((field, ",".join(value) if isinstance(value, list) else value) for field, value in given if value)
    task = override(known, [f"{field}={text}" for field, text in texts])
    ids = {protocol_id(record.task, task), protocol_id(record.task, task, record.data)}
    return task if record.protocol in ids else None


def subjects(records: Sequence[Result], known: Sequence[Board], work: Path) -> list[Subject]:
    """Everything that has results, each with the cells that these fill."""
    groups: dict[tuple[str, str], list[Result]] = {}
    called: dict[str, set[str]] = {"": {"", "no name"}}
    for record in records:
        recipe = str(record.origin.get("recipe") or "")
        called.setdefault(recipe or record.checkpoint_name, set()).add(recipe or record.checkpoint)
    for record in records:
        recipe, name = str(record.origin.get("recipe") or ""), record.checkpoint_name
        label = recipe or (name if len(called[name]) == 1 else f"{name} {record.checkpoint}".strip())
        groups.setdefault((recipe, label), []).append(record)
    data = cells.newest_data(records, {board.ours for board in known if board.ours})
    found = []
    for (recipe, label), mine in groups.items():
        own_notes: list[str] = []
        usable = cells.usable(mine, data, label, own_notes)
        filled = {
            (board.id, metric.name): cell
            for board in known
            for metric in board.metrics
            if board.ours and (cell := cells.cell(usable, board.ours, metric.name)).n
        }
        made = _pretraining(recipe, work, own_notes) if recipe else _of_checkpoint(mine[0].checkpoint_name)
        found.append(Subject(label, recipe, made, tuple(mine), filled, tuple(own_notes)))
    return found


def _pretraining(recipe: str, work: Path, notes: list[str]) -> Pretraining:
    """What the folders of a recipe's runs say."""
    folders = sorted((work / "pretrain" / recipe).glob("seed*"))
    epochs = None
    for path in [folder / "recipe.json" for folder in folders if (folder / "recipe.json").is_file()][:1]:
        with noting(notes, f"{recipe}: epochs unknown; {path.parent.name}/{path.name} is damaged"):
            epochs = int(json.loads(path.read_text(encoding="utf-8"))["recipe"]["epochs"])
    seconds = [spent for folder in folders if (spent := last_seconds(folder)) is not None]
    minutes = sum(seconds) / len(seconds) / 60 if seconds else 0.0 if epochs == 0 else None
    return Pretraining(epochs, "", minutes)


@cache
def _of_checkpoint(name: str) -> Pretraining:
    """What the tables of the package say of a checkpoint that they show beside a published method."""
    for row in (row for table in definition.names() for row in definition.load(table).rows):
        if row.checkpoint == name and row.method:
            alike = [each for each in published.select(method=row.method) if each.detail == row.detail]
            costs = {each.cost for each in alike if each.epochs == row.epochs and each.cost}
            return Pretraining(row.epochs, costs.pop() if len(costs) == 1 else "")
    return Pretraining()
