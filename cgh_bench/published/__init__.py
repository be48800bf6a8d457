"""Figures that others published, each with its protocol and its source, and what may be compared with what."""

import csv
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cgh_bench.core.errors import UserError, unknown

FOLDER = Path(__file__).parent
COSTS = ("", "asymmetric", "symmetric", "multi-crop")
ALIASES = {
    "Instance Discrimination": "InstDisc",
    "InsDis": "InstDisc",
    "NPID": "InstDisc",
    "MoCo": "MoCo v1",
    "Rotation-Pred": "Rotation",
    "RotNet": "Rotation",
    "Relative location": "Relative-Loc",
    "ImageNet supervised": "Supervised",
    "Supervised ImageNet": "Supervised",
    "Scratch": "Random init",
    "Barlow": "Barlow Twins",
    "LEWEL_B": "LEWEL",
}
"""Other names of methods, in any spelling of case, spaces and hyphens; the values are those of the figures."""


@dataclass(frozen=True)
class Figure:
    """One published number, in per cent."""

    protocol: str
    method: str
    """Canonical name."""
    detail: str
    """What tells this variant from the method's plain form; several parts joined by ", "."""
    epochs: int | None
    """Of pretraining; None where the source does not say, and for rows without pretraining."""
    cost: str
    """What an epoch costs: "asymmetric" (each image once through the trained network, as MoCo), "symmetric" (twice),
    "multi-crop", or "" where it is not known."""
    metric: str
    value: float
    deviation: str
    """How the evaluation departs from the protocol; such a figure fills no table."""
    source: str

    @property
    def text(self) -> str:
        """The value with one decimal, or with the two that the source gives."""
        return f"{self.value:.2f}".removesuffix("0")

    @property
    def variant(self) -> tuple[str, str, int | None]:
        """Equal for figures of the same method in the same form."""
        return self.method, self.detail, self.epochs


@dataclass(frozen=True)
class Protocol:
    """What a set of figures has in common."""

    name: str
    title: str
    family: str
    """Protocols of one family look alike; figures of two of them must still never share a column."""
    note: str
    source: str
    spread: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation between runs, in percentage points, by metric, where it is known."""
    spread_source: str = ""
    tasks: Sequence[str] = ()
    """Our tasks that follow this protocol; no other may stand in a column with its figures."""


@dataclass(frozen=True)
class Conflict:
    """Sources that give different values for the same thing."""

    protocol: str
    variant: tuple[str, str, int | None]
    metric: str
    figures: tuple[Figure, ...]


@cache
def protocols() -> dict[str, Protocol]:
    """Every protocol of the published figures by name."""
    document = tomllib.loads((FOLDER / "protocols.toml").read_text(encoding="utf-8"))
    return {name: Protocol(name, **entry) for name, entry in document.items()}


@cache
def figures() -> tuple[Figure, ...]:
    """Every published figure, in the order of the file."""
    return read(FOLDER / "figures.csv")


def read(path: Path) -> tuple[Figure, ...]:
    """The figures in the CSV file `path`.

    Raises:
        ValueError: a line that breaks the schema, with its number.
    """
    columns = list(Figure.__dataclass_fields__)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, restkey="surplus", restval="", strict=True)
        if reader.fieldnames != columns:
            raise ValueError(f"{path}: the columns are {reader.fieldnames}; they must be {columns}")
        found = []
        for line in reader:
            try:
                found.append(_figure(line))
            except ValueError as error:
                raise ValueError(f"{path}:{reader.line_num}: {error}") from None
    if len(set(found)) < len(found):
        repeated = next(figure for figure in found if found.count(figure) > 1)
        raise ValueError(f"{path}: twice the same: {repeated}")
    return tuple(found)


def _figure(line: Mapping[str, str]) -> Figure:
    if "surplus" in line:
        raise ValueError("too many fields")
    for name in ("protocol", "method", "metric", "source"):
        if not line[name].strip():
            raise ValueError(f"no {name}")
    if line["protocol"] not in protocols():
        raise unknown("published protocol", line["protocol"], protocols())
    if line["cost"] not in COSTS:
        raise unknown("cost", line["cost"], COSTS)
    value = float(line["value"])
    if not (math.isfinite(value) and 0 <= value <= 100):
        raise ValueError(f"{value} is no percentage")
    return Figure(
        line["protocol"],
        line["method"],
        line["detail"],
        int(line["epochs"]) if line["epochs"] else None,
        line["cost"],
        line["metric"],
        value,
        line["deviation"],
        line["source"],
    )


def select(protocol: str = "", method: str = "") -> list[Figure]:
    """The figures of one protocol, of one method, or of both; the method in any spelling or under another name.

    Raises:
        UserError: nothing is known by that name; the nearest names are given.
    """
    if protocol and protocol not in protocols():
        raise unknown("published protocol", protocol, protocols())
    wanted = canonical_method(method) if method else ""
    found = [f for f in figures() if protocol in ("", f.protocol) and wanted in ("", f.method)]
    if not found:
        known = sorted({figure.method for figure in select(protocol)})
        raise UserError(f"no published figure of {wanted} under {protocol}; there are those of {', '.join(known)}")
    return found


def canonical_method(name: str) -> str:
    """The name that the figures use for a method.

    Raises:
        UserError: no figure is of that method; the nearest names are given.
    """
    known = {figure.method for figure in figures()}
    spellings = {_plain(alias): method for alias, method in ALIASES.items()} | {_plain(m): m for m in known}
    if _plain(name) not in spellings:
        raise unknown("published method", name, known)
    return spellings[_plain(name)]


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum() or character == "+")


def conflicts(some: Iterable[Figure]) -> list[Conflict]:
    """Every (protocol, variant, metric) for which sources differ, none of them departing from the protocol."""
    groups: dict[tuple[str, tuple[str, str, int | None], str], list[Figure]] = {}
    for figure in some:
        if not figure.deviation:
            groups.setdefault((figure.protocol, figure.variant, figure.metric), []).append(figure)
    return [
        Conflict(*key, tuple(sorted(group, key=lambda figure: figure.value)))
        for key, group in groups.items()
        if len({figure.value for figure in group}) > 1
    ]


def why_not_comparable(a: Figure, b: Figure) -> str:
    """The reason why two figures must not be set against each other; empty where they may be."""
    if a.metric != b.metric:
        return f"{a.metric} and {b.metric} are different metrics"
    if a.protocol != b.protocol:
        first, second = protocols()[a.protocol], protocols()[b.protocol]
        alike = ", which look alike" if first.family == second.family else ""
        return f"{first.title!r} and {second.title!r} are different protocols{alike}"
    for figure in (a, b):
        if figure.deviation:
            return f"{figure.method} departs from the protocol: {figure.deviation}"
    if "" not in (a.cost, b.cost) and a.cost != b.cost:
        return f"an epoch of {a.method} is {a.cost}, one of {b.method} {b.cost}: compare at equal cost"
    return ""
