"""What a site is about: protocols with all that may stand under them, and the backbones that were measured."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cgh_bench import evaluate, published, tasks
from cgh_bench.core.config import plain
from cgh_bench.core.registry import registered
from cgh_bench.report import aggregate, definition, provenance
from cgh_bench.report.cells import Cell
from cgh_bench.results import Result
from cgh_bench.site import curves
from cgh_bench.tasks import Metric, Task


@dataclass(frozen=True)
class Board:
    """One protocol, with everything that may stand in its columns."""

    id: str
    title: str
    metrics: tuple[Metric, ...]
    task: Task | None
    """Ours; None for a published protocol that no measured task of ours follows."""
    published: published.Protocol | None

    @property
    def ours(self) -> str:
        """Our protocol id, empty where there is none."""
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
        """Of its page."""
        return f"protocols/{slug(self.id)}.html"


@dataclass(frozen=True)
class Pretraining:
    """What is known of how some weights were made."""

    epochs: int | None = None
    cost: str = ""
    """Of an epoch, as `published.Figure.cost`."""
    minutes: float | None = None
    """Wall clock on the machine where it ran, the mean over seeds."""


@dataclass(frozen=True)
class Subject:
    """What is measured: a recipe with all its trainings, or a single checkpoint that no recipe of ours trained."""

    label: str
    recipe: str
    pretraining: Pretraining
    results: tuple[Result, ...]
    cells: dict[tuple[str, str], Cell]
    """By board and metric."""

    @property
    def href(self) -> str:
        """Of its page."""
        return f"checkpoints/{slug(self.label)}.html"

    @property
    def first_runs(self) -> dict[str, Result]:
        """For each board the first run that counts: the one whose pictures are shown."""
        first: dict[str, Result] = {}
        for (board, _), cell in self.cells.items():
            first.setdefault(board, cell.runs[0])
        return first


def slug(name: str) -> str:
    """A file name for `name`: itself where it is plain, else what is plain of it with a digest."""
    clean = re.sub(r"[^A-Za-z0-9._@-]+", "-", name)[:60].strip(".-")
    return clean if clean == name else f"{clean}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def boards(records: Iterable[Result]) -> list[Board]:
    """Today's protocols of all tasks that have results, on the user's own data too, and every published protocol."""
    registry: dict[str, Task] = registered("cgh_bench.tasks", "TASKS")
    measured: dict[str, tuple[str, Task]] = {}
    for record in records:
        if not record.overridden and record.protocol not in measured and record.task in registry:
            task = _of_today(record)
            if task:
                measured[record.protocol] = record.task, task
    order = list(registry)
    found = []
    for protocol, (name, task) in sorted(measured.items(), key=lambda item: order.index(item[1][0])):
        theirs = _published(name, task)
        title = f"{theirs.title}, {name}" if theirs and len(theirs.tasks) > 1 else theirs.title if theirs else name
        own_data = f" on {task.data}" if not registry[name].data else ""
        found.append(Board(protocol, title + own_data, task.METRICS, task, theirs))
    followed = {board.published.name for board in found if board.published}
    for theirs in published.protocols().values():
        if theirs.name not in followed:
            names = dict.fromkeys(figure.metric for figure in published.select(theirs.name))
            found.append(Board(theirs.name, theirs.title, tuple(Metric(name) for name in names), None, theirs))
    return found


def _published(name: str, task: Task) -> published.Protocol | None:
    """The published protocol that a task follows, if its figures have a metric of the task's."""
    metrics = {metric.name for metric in task.METRICS}
    for protocol in published.protocols().values():
        if name in protocol.tasks and any(figure.metric in metrics for figure in published.select(protocol.name)):
            return protocol
    return None


def _of_today(record: Result) -> Task | None:
    """The task of a record if that has the same protocol today; the data of a task without its own are the record's."""
    known = tasks.find(record.task)
    own = [] if known.data or not record.config.get("data") else [f"data={record.config['data']}"]
    prepared = evaluate.prepare(record.task, own)
    return prepared.task if prepared.protocol == record.protocol else None


def subjects(records: Sequence[Result], known: Sequence[Board], work: Path, notes: list[str]) -> list[Subject]:
    """Everything that has results, each with the cells that these fill; what is left out is said in `notes`."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for record in records:
        recipe = str(record.origin.get("recipe") or "")
        groups.setdefault((recipe, recipe or f"{record.checkpoint_name} {record.checkpoint}".strip()), []).append(
            record
        )
    data = aggregate.newest_data(records, {board.ours for board in known if board.ours})
    found = []
    for (recipe, label), mine in groups.items():
        usable = aggregate.usable(mine, data, label, notes)
        cells = {
            (board.id, metric.name): cell
            for board in known
            for metric in board.metrics
            if board.ours and (cell := aggregate.cell(usable, board.ours, metric.name)).n
        }
        made = _of_recipe(recipe, work) if recipe else _of_name(mine[0].checkpoint_name)
        found.append(Subject(label, recipe, made, tuple(mine), cells))
    return found


def _of_recipe(recipe: str, work: Path) -> Pretraining:
    """What the folders of a recipe's runs say."""
    folders = sorted((work / "pretrain" / recipe).glob("seed*"))
    epochs = None
    for path in [folder / "recipe.json" for folder in folders if (folder / "recipe.json").is_file()][:1]:
        epochs = int(json.loads(path.read_text(encoding="utf-8"))["recipe"]["epochs"])
    seconds = [spent for folder in folders if (spent := curves.last_seconds(folder)) is not None]
    minutes = sum(seconds) / len(seconds) / 60 if seconds else 0.0 if epochs == 0 else None
    return Pretraining(epochs, "", minutes)


@cache
def _named() -> dict[str, Pretraining]:
    """Of every checkpoint that a table of the package sets beside a published method."""
    found = {}
    for name in definition.names():
        for row in definition.load(name).rows:
            if row.checkpoint and row.method:
                alike = [f for f in published.select(method=row.method) if f.detail == row.detail]
                costs = {f.cost for f in alike if f.epochs == row.epochs and f.cost}
                found[row.checkpoint] = Pretraining(row.epochs, costs.pop() if len(costs) == 1 else "")
    return found


def _of_name(checkpoint: str) -> Pretraining:
    return _named().get(checkpoint, Pretraining())
