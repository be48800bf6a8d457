"""Made-up tasks and results for the tests of `cgh_bench.report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from cgh_bench import tasks
from cgh_bench.core.config import plain
from cgh_bench.core.errors import unknown
from cgh_bench.evaluation import protocol_id
from cgh_bench.results import Result
from cgh_bench.tasks.base import Metric


@dataclass(frozen=True)
class Fake:
    """Measures nothing.

    Only the first sentence is shown.
    """

    METRICS: ClassVar = (Metric("top1"), Metric("error", higher_is_better=False), Metric("time", unit="s"))

    k: int = 20
    data: str = "animals"


TASKS = {"knn": Fake(), "linear": Fake(k=1)}

DEFINITION = """
title = "Small"
description = "Two rows."
[[rows]]
label = "A"
recipe = "a"
[[rows]]
label = "B"
recipe = "b"
[[columns]]
header = "kNN"
task = "knn"
metric = "top1"
[[columns]]
header = "linear error"
task = "linear"
metric = "error"
"""


def use_fake_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Fake:
        if name not in TASKS:
            raise unknown("task", name, TASKS)
        return TASKS[name]

    monkeypatch.setattr(tasks, "find", find)


def write_definition(folder: Path, text: str = DEFINITION) -> str:
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def result(recipe: str, value: float, *, task: str = "knn", pretraining: int | None = 0, **changes: object) -> Result:
    fields = {
        "task": task,
        "protocol": protocol_id(task, TASKS[task]),
        "metrics": {"top1": value, "error": value, "time": value},
        "checkpoint": f"{recipe}{pretraining}",
        "checkpoint_name": recipe,
        "origin": {"recipe": recipe, "seed": pretraining},
        "data": "d0",
        "config": plain(TASKS[task]),
        "seed": 0,
        "started": "2026-09-01T12:00:00+00:00",
    }
    return Result(**{**fields, **changes})
