"""Results: one typed record per run, one JSON line per record, appended and never rewritten."""

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cgh_bench.core import config
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import hold, locked

SCHEMA = 1
IMPORTED = "imported"


@dataclass(frozen=True)
class Result:
    """The metrics of one evaluation, and everything needed to reproduce it."""

    task: str
    protocol: str
    """Task name and fingerprint of its whole configuration: changing a default changes the protocol."""
    metrics: Mapping[str, float]
    """Numbers by name, each finite and in the unit that its task declares (`Task.METRICS`; per cent otherwise)."""
    checkpoint: str
    """Content id of the evaluated weights."""
    checkpoint_name: str
    origin: Mapping[str, Any]
    """Where the weights came from: reader, file, recipe, pretraining seed; and the network's cost."""
    data: str
    """Fingerprint of the data."""
    config: Mapping[str, Any]
    """The task's resolved configuration."""
    seed: int
    """The seed of the evaluation; that of the pretraining is in `origin`."""
    overridden: tuple[str, ...] = ()
    """The `--set` values that differ from the registered task; such a result appears in no table."""
    subset: str = ""
    """How much of the published data was used, if a subset was intended; such a result appears in no table."""
    commit: str = ""
    """Git commit of the code, with `-dirty` if files differed; empty outside a checkout."""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Versions of Python and of each package that takes part, by name."""
    device: str = ""
    """The GPU or the processor, by its own name."""
    started: str = ""
    """UTC, ISO 8601."""
    seconds: float = 0.0
    """The time that the run took, by the clock."""
    work: str = ""
    """Folder of the run's other files, relative to the store."""
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """All fields, as in the JSON line."""
        return dataclasses.asdict(self)

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name} {value:.2f}" for name, value in self.metrics.items())
        return f"{self.protocol} of {self.checkpoint_name}, seed {self.seed}: {metrics}"

    @property
    def cost(self) -> Mapping[str, Any]:
        """The cost of one image for the backbone in this task, see `frozen.cost`; empty if it was not measured."""
        return self.origin.get("cost") or {}

    @property
    def imported(self) -> bool:
        """Whether another tool measured this; `origin` then has that tool's file and its hash."""
        return self.origin.get("source") == IMPORTED

    def __post_init__(self) -> None:
        broken = [name for name, value in self.metrics.items() if not math.isfinite(value)]
        if broken:
            raise UserError(f"{self.task}: {', '.join(broken)} is not a finite number; the run has failed")


def append(store: Path, *added: Result) -> None:
    """Append results to the JSON Lines file `store` atomically, under a lock, and flush them to disk."""
    with locked(store) as file:
        _write(file, added)


def _write(file: BinaryIO, added: Iterable[Result]) -> None:
    """Append to a locked store. What a full disk left unfinished is taken back before the error is raised."""
    data = b"".join(_line(result) + b"\n" for result in added)
    end = file.seek(0, os.SEEK_END)
    if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
        data = b"\n" + data  # closes a line that a crash has torn, which would swallow the next
    try:
        while data:
            data = data[os.write(file.fileno(), data) :]
        os.fsync(file.fileno())
    except OSError:
        os.ftruncate(file.fileno(), end)
        raise


def _line(result: Result) -> bytes:
    return json.dumps(dataclasses.asdict(result), sort_keys=True, allow_nan=False).encode()


def read(store: Path) -> tuple[list[Result], list[str]]:
    """All records of `store` in order, and a message for each invalid line (the others remain usable).

    A line that repeats an earlier one byte for byte (as in joined stores) counts once.
    """
    if not store.exists():
        return [], []
    with store.open("rb") as file:
        hold(file, shared=True)
        return _records(file.read(), store)


def _records(content: bytes, store: Path) -> tuple[list[Result], list[str]]:
    records: list[Result] = []
    complaints: list[str] = []
    first_seen: dict[bytes, int] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
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
    document = json.loads(line.decode())
    if isinstance(document, dict) and document.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {document.get('schema')!r}")
    return config.read(Result, document)


def merge(stores: Sequence[Path], out: Path) -> tuple[int, list[str]]:
    """Append to `out` the records of other stores that it lacks; returns how many, and the messages of `read`.

    Folders of side products are renamed relative to `out`; records that differ in nothing else are the same.
    """
    found = [(store, *read(store)) for store in stores if store.resolve() != out.resolve()]
    complaints = [complaint for _, _, complaints in found for complaint in complaints]
    with locked(out) as file:
        file.seek(0)
        held, own_complaints = _records(file.read(), out)
        known = {_line(record) for record in held}
        added: dict[bytes, Result] = {}
        for store, records, _ in found:
            for record in records:
                work = os.path.relpath(store.parent / record.work, out.parent) if record.work else ""
                moved = dataclasses.replace(record, work=work)
                added.setdefault(_line(moved), moved)
        new = [record for line, record in added.items() if line not in known]
        if new:
            _write(file, new)
    return len(new), own_complaints + complaints


def select(
    records: Sequence[Result], task: str = "", protocol: str = "", checkpoint: str = "", method: str = ""
) -> list[tuple[int, Result]]:
    """The records that match every given filter, each with its number in the store, from 1.

    Args:
        records: all, in the order of the store.
        task: its name.
        protocol: its id.
        checkpoint: an id, or part of a name.
        method: part of the name of the recipe that trained the weights.
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
    """All records with every field, as one JSON array."""
    return json.dumps([dataclasses.asdict(record) for record in records], indent=1) + "\n"


def export_csv(records: Iterable[Result]) -> str:
    """One line per metric of each record, with its provenance; configuration and origin as JSON."""
    out = io.StringIO()
    plain = [field.name for field in dataclasses.fields(Result) if field.name != "metrics"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["metric", "value", *plain])
    for record in records:
        values = [getattr(record, name) for name in plain]
        texts = [value if isinstance(value, str | int | float) else json.dumps(value) for value in values]
        writer.writerows([metric, repr(value), *texts] for metric, value in record.metrics.items())
    return out.getvalue()
