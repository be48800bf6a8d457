"""What a table shows: `tables/NAME.toml`, or a file of the user's, read strictly."""

import tomllib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cgh_bench import published, tasks
from cgh_bench.core import config
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.published import PublishedResult
from cgh_bench.tasks.base import Metric

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class RowDefinition:
    """One row of a table: checkpoints that are measured, a method with published results, or both side by side."""

    label: str
    recipe: str = ""
    """Measured: the checkpoints that this recipe trained."""
    checkpoint: str = ""
    """Measured: the checkpoints of this name, which is the stem of the file, or `random:ARCH`."""
    method: str = ""
    """Published: the results of this method; see `cgh_bench.published`."""
    detail: str = ""
    """The variant of the method, as the published results spell it."""
    epochs: int | None = None
    """Epochs of the published pretraining; None: any."""


@dataclass(frozen=True)
class ColumnDefinition:
    """One column: a metric of a task under the task's current protocol, of a published protocol, or of both."""

    header: str
    metric: str
    task: str = ""
    data: str = ""
    """Data of your own, as `eval --data` was given them; only for a task that takes such."""
    published: str = ""
    """Name of a published protocol; if there is a task, one that it follows."""
    published_metric: str = ""
    """The name of the metric among the published results, if it is not `metric`."""

    @property
    def name_when_published(self) -> str:
        """The metric's name among the published results."""
        return self.published_metric or self.metric


@dataclass(frozen=True)
class Definition:
    """A whole table."""

    name: str
    title: str
    description: str
    rows: tuple[RowDefinition, ...]
    columns: tuple[ColumnDefinition, ...]


def names(folder: Path = TABLES) -> list[str]:
    """The tables that come with the package, or what else a folder of it has."""
    return sorted(path.stem for path in folder.glob("*.toml"))


@contextmanager
def document(name: str, folder: Path, what: str) -> Iterator[dict[str, Any]]:
    """The content of `name` in a folder of the package, or of the file `name` if that ends in `.toml`, with its name.

    Raises:
        UserError: no such file, or invalid TOML; or one that the block raises, whose message then begins with the path.
    """
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"no file {name}") if name.endswith(".toml") else unknown(what, name, names(folder))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, a number of 100,000 digits
        raise UserError(f"{path} is not valid TOML ({error}); fix that line") from None
    with _within(str(path)):
        yield {**content, "name": path.stem}


def load(name: str) -> Definition:
    """The table `name`, or the one in the file `name` if that ends in `.toml`.

    Raises:
        UserError: no such table or file, invalid TOML, a field missing, unknown or of the wrong type, or an unknown
            task, metric or method.
    """
    with document(name, TABLES, "table") as content:
        definition = config.read(Definition, content)
        if not definition.rows or not definition.columns:
            raise UserError("a table needs at least one row and one column")
        return _checked(definition)


def require_recipes(definition: Definition, known: Collection[str]) -> None:
    """Check that the recipe of every row is `known`.

    Raises:
        UserError: one is not; with the nearest names.
    """
    for row in definition.rows:
        if row.recipe and row.recipe not in known:
            raise unknown(f"recipe in table {definition.name}, row {row.label!r}:", row.recipe, known)


def choose(definition: Definition, labels: Collection[str]) -> Definition:
    """The table with only the rows of these labels; the whole table if none is given.

    Raises:
        UserError: no row has that label; with the nearest.
    """
    known = {row.label for row in definition.rows}
    for label in labels:
        if label not in known:
            raise unknown(f"row of table {definition.name}", label, known)
    return replace(definition, rows=tuple(row for row in definition.rows if not labels or row.label in labels))


def _checked(definition: Definition) -> Definition:
    """The table with the canonical names of its methods, after checking that all it names exists."""
    rows = []
    for column in definition.columns:
        with _within(f"column {column.header!r}"):
            _check_column(column)
    for row in definition.rows:
        with _within(f"row {row.label!r}"):
            rows.append(_checked_row(row, definition.columns))
    unique = {
        "rows have the label": [row.label for row in definition.rows],
        "rows have the recipe": [row.recipe for row in definition.rows if row.recipe],
        "rows have the checkpoint": [row.checkpoint for row in definition.rows if row.checkpoint],
        "columns have the header": [column.header for column in definition.columns],
    }
    for group, labels in unique.items():
        if repeated := sorted({label for label in labels if labels.count(label) > 1}):
            raise UserError(f"two {group} {repeated[0]!r}; each must be unique")
    return replace(definition, rows=tuple(rows))


def _check_column(column: ColumnDefinition) -> None:
    if not column.task and not column.published:
        raise UserError("a column needs a task, a published protocol, or both")
    if column.task:
        metrics = [metric.name for metric in tasks.find(column.task).METRICS]
        if column.metric not in metrics:
            raise unknown(f"metric of {column.task}", column.metric, metrics)
    if column.data and (not column.task or "data" not in tasks.find(column.task).open_fields(column.data)):
        raise UserError(f"{column.task or 'a published protocol'} does not accept your own data; leave out data")
    if column.data and column.published:
        raise UserError(f"nothing is published on {column.data}; leave out published")
    if column.published:
        metrics = list(dict.fromkeys(each.metric for each in published.select(column.published)))
        if column.name_when_published not in metrics:
            raise unknown(f"published metric of {column.published}", column.name_when_published, metrics)
    followers = published.protocols()[column.published].tasks if column.published else ()
    if column.task and column.published and column.task not in followers:
        raise UserError(
            f"{column.task} does not follow the published protocol {column.published} "
            f"({', '.join(followers) or 'no task'} does), so their results must not share a column"
        )


def _checked_row(row: RowDefinition, columns: Sequence[ColumnDefinition]) -> RowDefinition:
    if not (row.recipe or row.checkpoint or row.method):
        raise UserError("a row needs a recipe, a checkpoint or a method")
    if not row.method and (row.detail or row.epochs is not None):
        raise UserError("detail and epochs select published results of a method; add the method")
    if not row.method:
        return row
    row = replace(row, method=published.canonical_method(row.method))
    if not any(published_results(row, column) for column in columns):
        mine = published.select("", row.method)
        variants = sorted({f"{each.detail or 'no detail'}, {each.epochs} epochs" for each in mine})
        raise UserError(f"no published result for any column; variants of {row.method}: {'; '.join(variants)}")
    return row


def published_metric(protocol: published.Protocol, name: str) -> Metric:
    """One metric of a published protocol."""
    return Metric(name, protocol.errors.get(name, "%"), name not in protocol.errors)


def published_results(row: RowDefinition, column: ColumnDefinition) -> tuple[PublishedResult, ...]:
    """The published results for one cell, without those that deviate from the protocol."""
    if not row.method or not column.published:
        return ()
    wanted = (column.published, column.name_when_published, row.method, row.detail)
    return tuple(
        each
        for each in published.results()
        if (each.protocol, each.metric, each.method, each.detail) == wanted
        and row.epochs in (None, each.epochs)
        and not each.deviation
    )


@contextmanager
def _within(where: str) -> Iterator[None]:
    """Prefix a UserError of the block with the place it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
