"""Evaluations. A task is a frozen dataclass whose fields are its whole configuration, named in its file's `TASKS`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.discovery import registered
from cgh_bench.errors import unknown


@dataclass(frozen=True)
class Metric:
    """One number that a task reports."""

    name: str
    unit: str = "%"
    higher_is_better: bool = True


class Task(Protocol):
    """What every evaluation offers; the dataclass fields beside these are the protocol."""

    METRICS: ClassVar[tuple[Metric, ...]]
    """Every metric that `run` returns; the first is the main one."""

    @property
    def data(self) -> str:
        """The data set: a catalogue name or a folder."""
        ...

    def data_fingerprint(self, work: Path) -> str:
        """Content hash of the data; raises UserError where they are absent (which, where expected, how to get them)."""
        ...

    def run(self, checkpoint: Checkpoint, work: Path, seed: int) -> dict[str, float]:
        """Evaluate; keep side products (predictions, logs, pictures) in the folder `work`; `{metric: value}`."""
        ...


def find(name: str) -> Task:
    """The task of that name.

    Raises:
        UserError: there is none; the nearest names are given.
    """
    tasks: dict[str, Task] = registered("cgh_bench.tasks", "TASKS")
    if name not in tasks:
        raise unknown("task", name, tasks)
    return tasks[name]
