"""Every frozen task of the embedded animals, through plan, run and store, on pictures of their size."""

import math
from pathlib import Path
from typing import Any

import pytest
from toy_images import toy_data

from cgh_bench import results
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.registry import registered
from cgh_bench.evaluation import evaluate, find_finished, plan, prepare
from cgh_bench.tasks.base import ImageTask, Task
from cgh_bench.workspace import Workspace

TRAINED = (
    "animals_attentive",
    "animals_linear_sgd",
    "animals_finetune",
    "animals_finetune_10pct",
    "animals_finetune_vit",
)
TASKS: dict[str, Task[Any]] = registered("cgh_bench.tasks", "TASKS")
NAMES = [
    name
    for name, task in TASKS.items()
    if name.startswith("animals_") and isinstance(task, ImageTask) and not task.others()
]
"""Those that ask about the animals' own shifts know ten classes, not the toy's four."""
VARIANTS = ("animals_finetune_10pct", "animals_logistic_dinov2", "animals_linear_views", "animals_corruptions")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in VARIANTS else name for name in NAMES]
)
def test_planned_run_stored_and_not_run_again(name: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    backbone = random_checkpoint("test_vit" if name.endswith("_vit") else "test_resnet")
    settings = ["epochs=1"] if name in TRAINED else []
    (evaluation,) = prepare([name], workspace, settings, toy_data(80, 8, side=48))
    assert plan(evaluation, backbone, workspace)
    assert not list(tmp_path.iterdir())
    result = evaluate(evaluation, backbone, 0, workspace)
    assert {metric.name for metric in evaluation.task.METRICS if metric.always} <= result.metrics.keys()
    assert all(math.isfinite(value) and value <= 100 for value in result.metrics.values())
    assert any(workspace.evaluation(backbone, evaluation.protocol, 0).iterdir())
    assert results.read(workspace.store) == ([result], [])
    assert find_finished(evaluation, backbone, 0, workspace) == result
