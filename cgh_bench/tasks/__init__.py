"""Evaluations, one file each: what its `TASKS` names is registered. `tasks.base` says what a task is."""

from typing import TYPE_CHECKING, Any

from cgh_bench.core import registry

if TYPE_CHECKING:
    from cgh_bench.tasks.base import Task


def find(name: str) -> "Task[Any]":
    """The task of that name.

    Raises:
        UserError: there is none; the nearest names are given.
    """
    task: Task[Any] = registry.find("cgh_bench.tasks", "TASKS", name, "task")
    return task
