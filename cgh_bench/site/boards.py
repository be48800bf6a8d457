"""What a site shows: protocols with all results under them, the backbones that were measured, and their comparison."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench import published, tasks
from cgh_bench.core.config import override, plain
from cgh_bench.core.registry import registered
from cgh_bench.evaluation import protocol_id
from cgh_bench.published import Protocol as PublishedProtocol
from cgh_bench.report import cells, definition, provenance
from cgh_bench.report.cells import Cell, metric_label
from cgh_bench.report.significance import paired_interval, welch_half_widths
from cgh_bench.results import Result
from cgh_bench.site.breakdown import classification
from cgh_bench.site.charts import last_seconds
from cgh_bench.site.truth import noting
from cgh_bench.tasks.base import Metric, Task

MOST_PAIRED = 40
"""At most so many backbones per protocol, the first in the store, are compared image by image: all pairs of them."""
PAIRED_METRIC = "top1"


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
    """By board and metric."""
    notes: tuple[str, ...]
    """Which results were left out, and what is damaged."""

    @property
    def href(self) -> str:
        """The path of its page."""
        return f"checkpoints/{slug(self.label)}.html"

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
    """The current protocols of tasks with results, on the user's own data too, and every published protocol."""
    registry: dict[str, Task[Any]] = registered("cgh_bench.tasks", "TASKS")
    measured: dict[str, tuple[str, Task[Any]]] = {}
    for record in records:
        if record.overridden or record.subset or record.protocol in measured or record.task not in registry:
            continue
        if task := _current(record):
            measured[record.protocol] = record.task, task
    order = list(registry)
    found = []
    for protocol, (name, task) in sorted(measured.items(), key=lambda item: order.index(item[1][0])):
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
    for record in records:
        recipe = str(record.origin.get("recipe") or "")
        label = recipe or f"{record.checkpoint_name} {record.checkpoint}".strip()
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


def comparison(subjects: Sequence[Subject], boards: Sequence[Board], root: Path) -> dict[str, Any]:
    """What the page that compares two backbones shows, all statistics done.

    For each metric, `subjects` are those that have it, by their place in the list of all; `means`, `texts` and
    `replicates` are theirs. `pairs[j][i]` with i < j is half the width of Welch's interval of the difference between
    the i-th and the j-th of them, in thousandths, or null. `images` are intervals over images.
    """
    compared = [subject for subject in subjects if subject.cells]
    return {
        "subjects": [subject.label for subject in compared],
        "metrics": [
            _compared(board, metric, compared, root) for board in boards for metric in board.metrics if board.ours
        ],
    }


def _compared(board: Board, metric: Metric, subjects: Sequence[Subject], root: Path) -> dict[str, Any]:
    mine = [(number, cell) for number, s in enumerate(subjects) if (cell := s.cells.get((board.id, metric.name)))]
    halves = welch_half_widths([cell.values for _, cell in mine])
    replicates = np.array([cell.replicate for _, cell in mine])
    halves[replicates[:, None] != replicates] = math.nan
    measured = [subjects[number] for number, _ in mine]
    return {
        "board": board.title,
        "metric": metric_label(metric.name),
        "higher": metric.higher_is_better,
        "subjects": [number for number, _ in mine],
        "means": [round(cell.mean, 4) for _, cell in mine],
        "texts": [cell.text(2) for _, cell in mine],
        "replicates": [cell.replicate if cell.n > 1 else "" for _, cell in mine],
        "pairs": [[_thousandths(half) for half in line[:j]] for j, line in enumerate(halves.tolist())],
        "images": _paired(board, measured, root) if metric.name == PAIRED_METRIC else [],
    }


def _thousandths(half: float) -> int | None:
    """As short as it can be: a site of 250 backbones has half a million of them."""
    return None if math.isnan(half) else round(1000 * half)


def _paired(board: Board, measured: Sequence[Subject], root: Path) -> list[dict[str, Any]]:
    """The intervals over images of every two subjects whose runs left a class for each of the same val images."""
    rates = [(place, _rates(board, subject, root)) for place, subject in enumerate(measured[:MOST_PAIRED])]
    found = [(place, rate) for place, rate in rates if rate is not None]
    pairs = []
    for (first, a), (second, b) in combinations(found, 2):
        if len(a) == len(b):
            _, low, high = (round(100 * side, 3) for side in paired_interval(a - b))
            pairs.append({"first": first, "second": second, "low": low, "high": high, "images": len(a)})
    return pairs


def _rates(board: Board, subject: Subject, root: Path) -> NDArray[np.float64] | None:
    """How often each val image (N,) was classified correctly by the subject's runs; None if one left no predictions."""
    runs = subject.cells[board.id, PAIRED_METRIC].runs
    found = [classification(run, root, []) for run in runs]
    outcomes = [(outcome.rank < 1).mean(axis=1) for outcome in found if outcome is not None]
    if len(outcomes) < len(runs) or len({len(outcome) for outcome in outcomes}) != 1:
        return None
    rates: NDArray[np.float64] = np.mean(outcomes, axis=0, dtype=np.float64)
    return rates
