"""Results: one typed record a run, one JSON line a record, appended and never rewritten."""

import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    A line torn by an earlier crash is closed first, so that it cannot swallow this one.
    """
    line = json.dumps(dataclasses.asdict(result), sort_keys=True, allow_nan=False).encode() + b"\n"
    store.parent.mkdir(parents=True, exist_ok=True)
    with store.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            line = b"\n" + line
        os.write(file.fileno(), line)
        os.fsync(file.fileno())


def read(store: Path) -> tuple[list[Result], list[str]]:
    """All records of `store` in order, and one complaint for each line that is none (the rest stay usable)."""
    records, complaints = [], []
    if not store.exists():
        return [], []
    for number, line in enumerate(store.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            records.append(_parse(line))
        except (TypeError, KeyError, ValueError) as error:
            complaints.append(f"{store}:{number}: not a result of schema {SCHEMA} ({error}); line ignored")
    return records, complaints


def _parse(line: str) -> Result:
    fields = json.loads(line)
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
        raise ValueError("unknown schema")
    return Result(**{**fields, "overridden": tuple(fields["overridden"])})
