"""Results: one typed record a run, one JSON line a record, appended and never rewritten."""

import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cgh_bench.errors import UserError

SCHEMA = 1


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

    def __post_init__(self) -> None:
        broken = [name for name, value in self.metrics.items() if not math.isfinite(value)]
        if broken:
            raise UserError(f"{self.task}: {', '.join(broken)} is not a finite number; the run has failed")


def append(store: Path, result: Result) -> None:
    """Add `result` to the JSON-lines file `store` in one locked write, flushed to disk.

    A line torn by an earlier crash is closed first, so that it cannot swallow this one. When the disk is full, what
    was written of the line is taken back before the error is raised.
    """
    line = json.dumps(dataclasses.asdict(result), sort_keys=True, allow_nan=False).encode() + b"\n"
    store.parent.mkdir(parents=True, exist_ok=True)
    with store.open("ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            line = b"\n" + line
        try:
            _write_all(file.fileno(), line)
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), end)
            raise


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


def _parse(line: bytes) -> Result:
    """The record on one line.

    Raises:
        ValueError: no JSON object, another schema, a field missing, unknown or of the wrong type, or NaN.
    """
    fields = json.loads(line.decode(), parse_constant=_no_such_number)
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


def _no_such_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")
