import dataclasses
from pathlib import Path

import pytest

from cgh_bench import checkpoint, reproduce, results
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.evaluate import Workspace, protocol_id
from cgh_bench.report import definition
from cgh_bench.tasks import find
from cgh_bench.tasks.knn import KNN


@pytest.fixture
def table() -> definition.Definition:
    whole = definition.load("animals")
    return dataclasses.replace(whole, columns=tuple(c for c in whole.columns if c.task == "animals_knn"))


def test_every_row_and_seed_is_trained_and_evaluated_once(
    table: definition.Definition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, evaluated = [], []

    def pretrain(recipe: str, seed: int, folder: Path) -> Path:
        trained.append((recipe, seed))
        path = folder / "backbone.safetensors"
        if not path.exists():
            made = random_checkpoint("resnet18", seed=len(trained))
            origin = dataclasses.replace(made.origin, recipe=recipe, seed=seed)
            checkpoint.save(dataclasses.replace(made, origin=origin), path)
        return path

    def run(self: KNN, given: checkpoint.Checkpoint, folders: object, seed: int) -> dict[str, float]:
        evaluated.append((given.origin.recipe, seed))
        return {"top1": 1.0, "top5": 1.0, "class_balanced": 1.0}

    monkeypatch.setattr(KNN, "run", run)
    workspace = Workspace(tmp_path)
    reproduce.run(table, range(2), workspace, pretrain)
    expected = [(row.recipe, seed) for seed in range(2) for row in table.rows]
    assert trained == evaluated == expected
    records, complaints = results.read(workspace.store)
    assert not complaints
    assert {record.protocol for record in records} == {protocol_id("animals_knn", find("animals_knn"))}
    reproduce.run(table, range(2), workspace, pretrain)
    assert evaluated == expected  # finished work is not done again
