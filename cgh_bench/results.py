"""Results: one typed record a run, one JSON line a record, appended and never rewritten."""

import csv
import dataclasses
import fcntl
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cgh_bench.core.errors import UserError

SCHEMA = 1
IMPORTED = "imported"
LONGEST_WHOLE_NUMBER = 300
"""Characters; every number so long has a finite float."""


@dataclass(frozen=True)
class Result:
    """What one evaluation measured, and everything needed to run it again."""

    task: str
    protocol: str
    """Task name and fingerprint of its whole configuration: a changed default is another protocol."""
    metrics: Mapping[str, float]
    checkpoint: str
    """Content id of the evaluated weights."""
    checkpoint_name: str
    origin: Mapping[str, Any]
    """Where the weights came from: reader, file, recipe, pretraining seed."""
    data: str
    """Fingerprint of the data."""
    config: Mapping[str, Any]
    """The task's resolved configuration."""
    seed: int
    overridden: tuple[str, ...] = ()
    """The `--set` that made this run differ from the registered task; such a result fills no table."""
    commit: str = ""
    """Git commit of the code, `-dirty` appended where files differed; empty outside a checkout."""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    device: str = ""
    started: str = ""
    """UTC, ISO 8601."""
    seconds: float = 0.0
    work: str = ""
    """Folder of the side products, relative to the store."""
    schema: int = SCHEMA

    @property
    def imported(self) -> bool:
        """Whether another tool measured this; `origin` then names that tool's file with its hash."""
        return self.origin.get("source") == IMPORTED

    def __post_init__(self) -> None:
        broken = [name for name, value in self.metrics.items() if not math.isfinite(value)]
        if broken:
            raise UserError(f"{self.task}: {', '.join(broken)} is not a finite number; the run has failed")


def append(store: Path, *added: Result) -> None:
    """Add results to the JSON-lines file `store` in one locked write, flushed to disk.

    A line torn by an earlier crash is closed first, so that it cannot swallow the next. When the disk is full, what
    was written is taken back before the error is raised.
    """
    lines = b"".join(_line(result) + b"\n" for result in added)
    store.parent.mkdir(parents=True, exist_ok=True)
    with store.open("ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            lines = b"\n" + lines
        try:
            _write_all(file.fileno(), lines)
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), end)
            raise


def _line(result: Result) -> bytes:
    return json.dumps(dataclasses.asdict(result), sort_keys=True, allow_nan=False).encode()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def read(store: Path) -> tuple[list[Result], list[str]]:
    """All records of `store` in order, and one complaint for each line that is none (the rest stay usable).

    A line that repeats an earlier one byte for byte (stores that were copied together) counts once.
    """
    if not store.exists():
        return [], []
    with store.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        lines = file.read().split(b"\n")
    records: list[Result] = []
    complaints: list[str] = []
    first_seen: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if (first := first_seen.setdefault(line.strip(), number)) != number:
            complaints.append(f"{store}:{number}: repeats line {first}; counted once")
            continue
        try:
            records.append(_parse(line))
        except (ValueError, RecursionError) as error:
            complaints.append(f"{store}:{number}: not a result of schema {SCHEMA} ({error}); line ignored")
    return records, complaints


def merge(stores: Sequence[Path], out: Path) -> tuple[int, list[str]]:
    """Append to `out` what it does not hold yet of other stores; how many records that was, and all complaints.

    Folders of side products are named from where `out` is; records that differ in nothing else are the same.
    """
    held, complaints = read(out)
    known = {_line(record) for record in held}
    added = []
    for store in stores:
        records, more = read(store)
        complaints += more
        for record in records:
            work = os.path.relpath(store.parent / record.work, out.parent) if record.work else ""
            moved = dataclasses.replace(record, work=work)
            if _line(moved) not in known:
                known.add(_line(moved))
                added.append(moved)
    if added:
        append(out, *added)
    return len(added), complaints


def select(
    records: Sequence[Result], task: str = "", protocol: str = "", checkpoint: str = "", method: str = ""
) -> list[tuple[int, Result]]:
    """The records that fit all that is given, each with its number in the store, from 1.

    Args:
        records: all, in the order of the store.
        task: its name.
        protocol: its id.
        checkpoint: an id, or a part of a name.
        method: a part of the name of the recipe that trained the weights.
    """
    return [
        (number, record)
        for number, record in enumerate(records, start=1)
        if task in ("", record.task)
        and protocol in ("", record.protocol)
        and (checkpoint == record.checkpoint or checkpoint in record.checkpoint_name)
        and method in str(record.origin.get("recipe", ""))
    ]


def export_json(records: Iterable[Result]) -> str:
    """One array of all records, every field."""
    return json.dumps([dataclasses.asdict(record) for record in records], indent=1, ensure_ascii=False) + "\n"


def export_csv(records: Iterable[Result]) -> str:
    """Tidy: one line for every metric of every record, with its provenance; configuration and origin as JSON."""
    out = io.StringIO()
    plain = [field.name for field in dataclasses.fields(Result) if field.name != "metrics"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["metric", "value", *plain])
    for record in records:
        values = [getattr(record, name) for name in plain]
        texts = [value if isinstance(value, str | int | float) else json.dumps(value) for value in values]
        writer.writerows([metric, repr(value), *texts] for metric, value in record.metrics.items())
    return out.getvalue()


def _parse(line: bytes) -> Result:
    """The record on one line.

    Raises:
        ValueError: no JSON object, another schema, a field missing, unknown or of the wrong type, or NaN.
    """
    fields = json.loads(line.decode(), parse_constant=_no_such_number, parse_int=_whole_number)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    if fields.get("schema") != SCHEMA:
        raise ValueError(f"schema {fields.get('schema')!r}")
    expected = {field.name for field in dataclasses.fields(Result)}
    if missing := sorted(expected - set(fields)):
        raise ValueError(f"without {', '.join(missing)}")
    if surplus := sorted(set(fields) - expected):
        raise ValueError(f"unknown field {', '.join(surplus)}")
    for name, kinds in _KINDS.items():
        if not isinstance(fields[name], kinds) or isinstance(fields[name], bool):
            raise ValueError(f"{name} is a {type(fields[name]).__name__}")
    _require_values("metrics", fields["metrics"].values(), (int, float))
    _require_values("versions", fields["versions"].values(), (str,))
    _require_values("overridden", fields["overridden"], (str,))
    # A lone surrogate or 1e999 would only fail later, when a table is written.
    json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    return Result(**{**fields, "overridden": tuple(fields["overridden"])})


_KINDS: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "protocol": str,
    "metrics": dict,
    "checkpoint": str,
    "checkpoint_name": str,
    "origin": dict,
    "data": str,
    "config": dict,
    "seed": int,
    "overridden": list,
    "commit": str,
    "versions": dict,
    "device": str,
    "started": str,
    "seconds": (int, float),
    "work": str,
}
"""The JSON type of every field but `schema`; JSON itself knows no others."""


def _require_values(name: str, values: Any, kinds: tuple[type, ...]) -> None:
    for value in values:
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{name} holds a {type(value).__name__}")


def _whole_number(text: str) -> int:
    if len(text) > LONGEST_WHOLE_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _no_such_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")
