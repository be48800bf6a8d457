"""Evaluations, one file each: what its `TASKS` names is registered. `tasks.base` says what a task is."""

from typing import TYPE_CHECKING, Any

from cgh_bench.core.errors import unknown
from cgh_bench.core.registry import registered

if TYPE_CHECKING:
    from cgh_bench.tasks.base import Task


def find(name: str) -> "Task[Any]":
    """The task of that name.

    Raises:
        UserError: there is none; the nearest names are given.
    """
    tasks: dict[str, Task[Any]] = registered("cgh_bench.tasks", "TASKS")
    if name not in tasks:
        raise unknown("task", name, tasks)
    return tasks[name]
