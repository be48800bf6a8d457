"""Evaluations. A task is a frozen dataclass whose fields are its whole configuration, named in its file's `TASKS`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.errors import unknown
from cgh_bench.core.registry import registered


@dataclass(frozen=True)
class Metric:
    """One number that a task reports."""

    name: str
    unit: str = "%"
    higher_is_better: bool = True


@dataclass(frozen=True)
class Folders:
    """Where a run may write."""

    run: Path
    """This run's own: predictions, logs, pictures, checkpoints."""
    cache: Path
    """Shared by all runs: features, embedded data sets; everything in it can be made again."""


class Task(Protocol):
    """What every evaluation offers; the dataclass fields beside these are the protocol."""

    METRICS: ClassVar[tuple[Metric, ...]]
    """Every metric that `run` returns; the first is the main one."""

    @property
    def data(self) -> str:
        """The data set: a catalogue name or a folder."""
        ...

    def data_fingerprint(self, cache: Path) -> str:
        """Content hash of the data, which are checked (and the embedded ones written below `cache`) before any work.

        Raises:
            UserError: data are absent or broken: which, where they are expected, how to get them.
        """
        ...

    def run(self, checkpoint: Checkpoint, folders: Folders, seed: int) -> dict[str, float]:
        """Evaluate `checkpoint` and return `{metric: value}`; goes on where an interrupted run of the same stopped."""
        ...


@runtime_checkable
class Planned(Protocol):
    """What a task also offers that can tell beforehand what it will take."""

    def plan(self, checkpoint: Checkpoint, folders: Folders) -> list[str]:
        """Time, disk and memory, a line each; nothing is written."""
        ...


@runtime_checkable
class Versioned(Protocol):
    """What a task also offers that runs in packages of another environment."""

    def versions(self, folders: Folders) -> dict[str, str]:
        """Of the packages that a finished run in `folders` used."""
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
