import dataclasses
from pathlib import Path

import pytest

from cgh_bench import checkpoint, reproduce, results
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.evaluation import evaluate, prepare, protocol_id
from cgh_bench.pretrain.recipe import Recipe
from cgh_bench.report import definition
from cgh_bench.report import table as tables
from cgh_bench.tasks import find
from cgh_bench.tasks.knn import KNN
from cgh_bench.workspace import Workspace


@pytest.fixture
def table() -> definition.Definition:
    whole = definition.load("animals")
    return dataclasses.replace(whole, columns=tuple(c for c in whole.columns if c.task == "animals_knn"))


def test_every_row_and_seed_is_trained_and_evaluated_once(
    table: definition.Definition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, evaluated = [], []

    def train(recipe: Recipe, name: str, folder: Path, *, cache: Path) -> Path:
        trained.append((name, recipe.seed))
        path = folder / "backbone.safetensors"
        if not path.exists():
            made = random_checkpoint("test_resnet", seed=len(trained))
            origin = dataclasses.replace(made.origin, recipe=name, seed=recipe.seed)
            checkpoint.save(dataclasses.replace(made, origin=origin), path)
        return path

    def run(self: KNN, given: checkpoint.Checkpoint, data: object, folders: object, seed: int) -> dict[str, float]:
        evaluated.append((given.origin.recipe, seed))
        return {"top1": 1.0, "top5": 1.0, "class_balanced": 1.0}

    monkeypatch.setattr(KNN, "run", run)
    monkeypatch.setattr(reproduce, "train", train)
    workspace = Workspace(tmp_path)
    reproduce.run(table, range(2), workspace, tmp_path)
    expected = [(row.recipe, seed) for seed in range(2) for row in table.rows]
    assert trained == evaluated == expected
    records, complaints = results.read(workspace.store)
    assert not complaints
    assert {record.protocol for record in records} == {protocol_id("animals_knn", find("animals_knn"))}
    reproduce.run(table, range(2), workspace, tmp_path)
    assert evaluated == expected  # finished work is not done again


def test_cells_run_side_by_side_and_one_that_fails_stops_no_other(
    table: definition.Definition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In processes of their own. The evaluation is finished beforehand: it knows the weights by their content."""
    workspace = Workspace(tmp_path / "work")
    monkeypatch.setattr(KNN, "run", lambda *_: {"top1": 1.0, "top5": 1.0, "class_balanced": 1.0})
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    evaluate(prepare(["animals_knn"], workspace)[0], random_checkpoint("resnet18", seed=1), 1, workspace)
    rows = (
        definition.RowDefinition("absent", recipe="cgh_r50_in1k_200ep"),
        definition.RowDefinition("control", recipe="random_r18_animals"),
    )
    with pytest.raises(UserError, match=r"^1 failed \(absent, seed 1: pretraining cgh_r50_in1k_200ep\)"):
        reproduce.run(dataclasses.replace(table, rows=rows), [1], workspace, tmp_path, jobs=2)
    said = capfd.readouterr().err.splitlines()
    assert any(line.startswith("» error: absent, seed 1: ") and "imagenet" in line for line in said), said
    assert said[-1] == "» 4 of 4 done" and not any("Traceback" in line for line in said)
    weights = workspace.pretraining("random_r18_animals", 1) / "backbone.safetensors"
    assert checkpoint.load_canonical(weights).id == random_checkpoint("resnet18", seed=1).id


def named(table: definition.Definition, *checkpoints: str) -> definition.Definition:
    rows = tuple(definition.RowDefinition(label=f"row {name}", checkpoint=name) for name in checkpoints)
    return dataclasses.replace(table, rows=rows)


def test_checkpoints_that_rows_name_are_found_and_controls_are_initialised_anew(
    table: definition.Definition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = []

    def run(self: KNN, given: checkpoint.Checkpoint, data: object, folders: object, seed: int) -> dict[str, float]:
        evaluated.append((given.name, seed, given.id))
        return {"top1": 1.0, "top5": 1.0, "class_balanced": 1.0}

    monkeypatch.setattr(KNN, "run", run)
    checkpoint.save(random_checkpoint("test_resnet", seed=9), tmp_path / "theirs.safetensors")
    workspace = Workspace(tmp_path / "work")
    both = named(table, "theirs", "random:test_resnet")
    reproduce.run(both, range(2), workspace, tmp_path)
    assert [(name, seed) for name, seed, _ in evaluated] == [
        (name, seed) for seed in range(2) for name in ("theirs", "random:test_resnet")
    ]
    assert len({weights for name, _, weights in evaluated if name == "theirs"}) == 1
    assert len({weights for name, _, weights in evaluated if name == "random:test_resnet"}) == 2
    filled = tables.fill(both, results.read(workspace.store)[0])
    assert [(row.cells[0].n, row.cells[0].replicate) for row in filled.rows] == [
        (1, "evaluation seed"),
        (2, "pretraining seed"),
    ]


def test_a_missing_checkpoint_is_named_before_anything_is_done(table: definition.Definition, tmp_path: Path) -> None:
    both = named(table, "random:test_resnet", "absent")
    with pytest.raises(UserError, match=r"row 'row absent' needs one file absent\.\* in .* found none; .*--row"):
        reproduce.run(both, range(1), Workspace(tmp_path), tmp_path)
    for suffix in ("pth", "pth.tar"):
        (tmp_path / f"absent.{suffix}").touch()
    with pytest.raises(UserError, match=r"found 2 \(absent.pth, absent.pth.tar\)"):
        reproduce.run(both, range(1), Workspace(tmp_path), tmp_path)
    assert not (tmp_path / "results.jsonl").exists()


def test_a_plan_says_what_is_there_and_what_would_run_and_runs_nothing(
    table: definition.Definition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: KNN, given: checkpoint.Checkpoint, data: object, folders: object, seed: int) -> dict[str, float]:
        return {"top1": 1.0, "top5": 1.0, "class_balanced": 1.0}

    monkeypatch.setattr(KNN, "run", run)
    monkeypatch.setattr(KNN, "plan", lambda self, given, data, folders: [f"as long as {given.name} takes"])
    workspace, trained = Workspace(tmp_path), tmp_path / "pretrain/cgh_r18_animals/seed0"
    rows = tuple(row for row in table.rows if row.label != "MoCo v2")
    chosen = dataclasses.replace(
        table, rows=(*rows, definition.RowDefinition("control", checkpoint="random:test_resnet"))
    )
    evaluate(prepare(["animals_knn"], workspace)[0], random_checkpoint("test_resnet"), 0, workspace)
    before = workspace.store.read_bytes()
    checkpoint.save(random_checkpoint("test_resnet"), trained / "backbone.safetensors")
    (trained / "log.jsonl").write_text('{"seconds": 300}\n')
    protocol = protocol_id("animals_knn", find("animals_knn"))
    finished, would_run = f"  {protocol}: finished", f"  {protocol}: would run"
    assert list(reproduce.plan(chosen, range(2), workspace, tmp_path)) == [
        "Random init, seed 0", "  pretraining random_r18_animals: would run", would_run,
        "    as long as random_r18_animals takes",
        "CGH, seed 0", "  pretraining cgh_r18_animals: finished", finished,
        "control, seed 0", finished,
        "Random init, seed 1", "  pretraining random_r18_animals: would run", would_run,
        "CGH, seed 1", "  pretraining cgh_r18_animals: would run, about 5 min (median of 1 earlier)", would_run,
        "    as long as cgh_r18_animals takes",
        "control, seed 1", would_run, "    as long as random:test_resnet takes",
        "7 would run, 3 finished",
    ]  # fmt: skip
    assert workspace.store.read_bytes() == before
    with pytest.raises(UserError, match="needs one file absent"):
        list(reproduce.plan(named(table, "absent"), range(1), workspace, tmp_path))


def test_rows_are_chosen_by_their_labels(table: definition.Definition) -> None:
    assert definition.choose(table, []) == table
    assert [row.label for row in definition.choose(table, ["CGH"]).rows] == ["CGH"]
    with pytest.raises(UserError, match="unknown row of table animals 'CHG'; did you mean CGH"):
        definition.choose(table, ["CHG"])
