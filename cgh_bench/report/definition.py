"""What a table shows: `tables/NAME.toml`, or a file of the user's, read strictly."""

import tomllib
from collections.abc import Collection
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from cgh_bench import tasks
from cgh_bench.errors import UserError, unknown

TABLES = Path(__file__).parent / "tables"

T = TypeVar("T")


@dataclass(frozen=True)
class RowDefinition:
    """One line of a table: the checkpoints that a recipe trained."""

    label: str
    recipe: str


@dataclass(frozen=True)
class ColumnDefinition:
    """One column: a metric of a task under the task's current protocol."""

    header: str
    task: str
    metric: str


@dataclass(frozen=True)
class Definition:
    """A whole table."""

    name: str
    title: str
    description: str
    rows: tuple[RowDefinition, ...]
    columns: tuple[ColumnDefinition, ...]


def names() -> list[str]:
    """The tables that come with the package."""
    return sorted(path.stem for path in TABLES.glob("*.toml"))


def load(name: str) -> Definition:
    """The table `name`, or the one in the file `name` where that ends in `.toml`.

    Raises:
        UserError: no such table or file, no TOML, a field missing, unknown or of the wrong type, or a task or metric
            that is not registered.
    """
    path = Path(name) if name.endswith(".toml") else TABLES / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"no file {name}") if name.endswith(".toml") else unknown("table", name, names())
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error}); mend that line") from None
    for group in ("rows", "columns"):
        if not isinstance(document.get(group), list) or not document[group]:
            raise UserError(f"{path}: without [[{group}]]; a table needs at least one of each")
    document["rows"] = tuple(_read(RowDefinition, row, f"{path}: [[rows]]") for row in document["rows"])
    document["columns"] = tuple(_read(ColumnDefinition, c, f"{path}: [[columns]]") for c in document["columns"])
    definition = _read(Definition, {**document, "name": path.stem}, str(path))
    _check(definition, path)
    return definition


def require_recipes(definition: Definition, known: Collection[str]) -> None:
    """Refuse a table with a row whose recipe is not among the `known` ones; the nearest names are given."""
    for row in definition.rows:
        if row.recipe not in known:
            raise unknown(f"recipe in table {definition.name}, row {row.label!r}:", row.recipe, known)


def _read(kind: type[T], document: Any, where: str) -> T:
    if not isinstance(document, dict):
        raise UserError(f"{where}: {document!r} is not a group of fields")
    expected = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # every kind is a dataclass
    for key, value in document.items():
        if key not in expected:
            raise unknown(f"field in {where}:", key, expected)
        if expected[key].type is str and not isinstance(value, str):
            raise UserError(f"{where}: {key} = {value!r} is not a text in quotes")
    missing = [name for name, field in expected.items() if name not in document and field.default is MISSING]
    if missing:
        raise UserError(f"{where}: without {', '.join(missing)}; needed: {', '.join(expected)}")
    return kind(**document)


def _check(definition: Definition, path: Path) -> None:
    for column in definition.columns:
        try:
            metrics = [metric.name for metric in tasks.find(column.task).METRICS]
            if column.metric not in metrics:
                raise unknown(f"metric of {column.task}", column.metric, metrics)
        except UserError as error:
            raise UserError(f"{path}: column {column.header!r}: {error}") from None
    for group, labels in (
        ("[[rows]] have the label", [row.label for row in definition.rows]),
        ("[[rows]] have the recipe", [row.recipe for row in definition.rows]),
        ("[[columns]] have the header", [column.header for column in definition.columns]),
    ):
        if repeated := sorted({label for label in labels if labels.count(label) > 1}):
            raise UserError(f"{path}: two {group} {repeated[0]!r}; each must be different")
