"""Results that others published, each with its protocol and source, and which may be compared."""

import csv
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cgh_bench.core.errors import UserError, unknown

FOLDER = Path(__file__).parent
COSTS = {"": "", "asymmetric": "1 (asymmetric)", "symmetric": "2 (symmetric)", "multi-crop": "multi-crop"}
"""What an epoch of pretraining costs: how many views of each image pass through the trained network, in words."""
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
"""Other names of methods, in any spelling of case, spaces and hyphens, and the names that `results.csv` uses."""


@dataclass(frozen=True)
class PublishedResult:
    """One published number, in per cent, or in the unit that its protocol's `errors` names."""

    protocol: str
    method: str
    """Canonical name."""
    detail: str
    """What sets this variant apart from the method's plain form; several parts joined by ", "."""
    epochs: int | None
    """Epochs of pretraining; None if the source does not say, or if there was no pretraining."""
    cost: str
    """A key of `COSTS`; empty if unknown."""
    metric: str
    value: float
    deviation: str
    """How the evaluation deviates from the protocol, or "suspect: " and why; such a result fills no table."""
    source: str

    @property
    def text(self) -> str:
        """The value as its source prints it."""
        return printed(self.value)

    @property
    def place(self) -> str:
        """The repository or site of the source, short."""
        parts = self.source.split(" ")[0].split("/")
        return "/".join(parts[3:5] if parts[2] == "github.com" else parts[2:5])

    @property
    def variant(self) -> tuple[str, str, int | None]:
        """Equal for results of the same method in the same form."""
        return self.method, self.detail, self.epochs


@dataclass(frozen=True)
class Protocol:
    """What a set of published results has in common."""

    name: str
    title: str
    family: str
    """Protocols of one family look alike; results of two of them must still never share a column."""
    note: str
    source: str
    spread: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation between runs, in percentage points, for the metrics where it is known."""
    spread_source: str = ""
    tasks: Sequence[str] = ()
    """Our tasks that follow this protocol; only these may share a column with its results."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """The unit of each metric for which lower is better."""


@dataclass(frozen=True)
class Unread:
    """A method whose published numbers could be read nowhere. A line in `results.csv` with its source ends that."""

    reason: str
    protocols: Sequence[str]
    """The protocols that it was evaluated under."""

    def how_to_add(self, method: str) -> str:
        """The line that is to be appended."""
        line = f"{self.protocols[0]},{method},,200,asymmetric,METRIC,VALUE,,SOURCE"
        return f"append to cgh_bench/published/results.csv: {line}"


UNREAD = {
    "CGH": Unread(
        "its tables could be read in no source when these were collected (November 2026), and its authors' repository "
        "has no number, log or weights; they are in the paper, WACV 2024, https://arxiv.org/abs/2308.13392",
        ("voc_det", "coco_c4_1x", "imagenet_linear", "imagenet_semi1", "imagenet_semi10"),
    )
}


@dataclass(frozen=True)
class Conflict:
    """Sources that give different values for the same thing."""

    protocol: str
    variant: tuple[str, str, int | None]
    metric: str
    results: tuple[PublishedResult, ...]


def printed(value: float) -> str:
    """`value` with as many decimals as it has, one to three."""
    whole, _, decimals = f"{value:.3f}".partition(".")
    return f"{whole}.{decimals[0]}{decimals[1:].rstrip('0')}"


@cache
def protocols() -> dict[str, Protocol]:
    """Every protocol of the published results, by name."""
    document = tomllib.loads((FOLDER / "protocols.toml").read_text(encoding="utf-8"))
    return {name: Protocol(name, **entry) for name, entry in document.items()}


@cache
def results() -> tuple[PublishedResult, ...]:
    """Every published result, in the order of the file."""
    return read(FOLDER / "results.csv")


def read(path: Path) -> tuple[PublishedResult, ...]:
    """The published results in the CSV file `path`.

    Raises:
        ValueError: a line that breaks the schema; with its number.
    """
    columns = list(PublishedResult.__dataclass_fields__)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, restkey="surplus", restval="", strict=True)
        if reader.fieldnames != columns:
            raise ValueError(f"{path}: the columns are {reader.fieldnames}; they must be {columns}")
        found = []
        for line in reader:
            try:
                found.append(_parse(line))
            except ValueError as error:
                raise ValueError(f"{path}:{reader.line_num}: {error}") from None
    if len(set(found)) < len(found):
        repeated = next(each for each in found if found.count(each) > 1)
        raise ValueError(f"{path}: repeated line: {repeated}")
    return tuple(found)


def _parse(line: Mapping[str, str]) -> PublishedResult:
    if "surplus" in line:
        raise ValueError("too many fields")
    for name in ("protocol", "method", "metric", "source"):
        if not line[name].strip():
            raise ValueError(f"missing {name}")
    if line["protocol"] not in protocols():
        raise unknown("published protocol", line["protocol"], protocols())
    if line["cost"] not in COSTS:
        raise unknown("cost", line["cost"], COSTS)
    value = float(line["value"])
    if not (math.isfinite(value) and 0 <= value <= 100):
        raise ValueError(f"{value} is not a percentage")
    return PublishedResult(
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


def select(protocol: str = "", method: str = "") -> list[PublishedResult]:
    """The results of one protocol, of one method, or of both; the method in any spelling or under another name.

    Raises:
        UserError: the protocol or method is unknown (with the nearest names), or has no result.
    """
    if protocol and protocol not in protocols():
        raise unknown("published protocol", protocol, protocols())
    wanted = canonical_method(method) if method else ""
    found = [each for each in results() if protocol in ("", each.protocol) and wanted in ("", each.method)]
    if not found:
        known = sorted({each.method for each in select(protocol)})
        raise UserError(f"no published result of {wanted} under {protocol}; methods: {', '.join(known)}")
    return found


def canonical_method(name: str) -> str:
    """The name that `results.csv` uses for a method.

    Raises:
        UserError: the method has no published result; with the nearest names.
    """
    known = {each.method for each in results()}
    for method, entry in UNREAD.items():
        if method not in known and _plain(method) == _plain(name):
            raise UserError(f"no published result of {method}: {entry.reason}; to add one, {entry.how_to_add(method)}")
    spellings = {_plain(alias): method for alias, method in ALIASES.items()} | {_plain(m): m for m in known}
    if _plain(name) not in spellings:
        raise unknown("published method", name, known)
    return spellings[_plain(name)]


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum() or character == "+")


def unread(protocol: str) -> list[str]:
    """Who was evaluated under a protocol, but has no result here: each with the reason, and how to add one."""
    known = {each.method for each in results() if each.protocol == protocol}
    return [
        f"{method}: no number; {entry.reason}; to add one, {entry.how_to_add(method)}"
        for method, entry in UNREAD.items()
        if protocol in entry.protocols and method not in known
    ]


def conflicts(some: Iterable[PublishedResult]) -> list[Conflict]:
    """Every (protocol, variant, metric) for which sources differ although none deviates from the protocol."""
    groups: dict[tuple[str, tuple[str, str, int | None], str], list[PublishedResult]] = {}
    for each in some:
        if not each.deviation:
            groups.setdefault((each.protocol, each.variant, each.metric), []).append(each)
    return [
        Conflict(*key, tuple(sorted(group, key=lambda each: each.value)))
        for key, group in groups.items()
        if len({each.value for each in group}) > 1
    ]
