"""Controls: what needs no network, and what it is for."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import command
import numpy as np
import pytest
import torch
from PIL import Image
from reporting import DEFINITION, result, use_fake_tasks, write_definition

from cgh_bench import results, tasks
from cgh_bench.checkpoint import Origin
from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import EvalTransform
from cgh_bench.evaluation import evaluate, prepare
from cgh_bench.reading.loading import load
from cgh_bench.report import definition, table
from cgh_bench.report.control_runs import run_controls
from cgh_bench.tasks.knn import KNN
from cgh_bench.workspace import Workspace


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("control:pixels", lambda x: x.reshape(2, 3, 16, 2, 16, 2).mean(axis=(3, 5)).reshape(2, -1)),
        ("control:channels", lambda x: np.concatenate([x.mean(axis=(2, 3)), x.std(axis=(2, 3), ddof=1)], axis=1)),
    ],
)
def test_controls_are_what_they_say(name: str, expected: Callable[[np.ndarray], np.ndarray]) -> None:
    images, control = np.random.default_rng(0).random((2, 3, 32, 32)).astype(np.float32), load(name)
    found = control.backbone()(torch.from_numpy(images)).numpy()
    assert np.allclose(found, expected(images), atol=1e-6)
    assert (control.name, found.shape[1]) == (name, control.backbone().dim)
    with pytest.raises(UserError, match="layer3"):
        control.architecture.targets("layer3")


def test_an_unknown_control_is_one_line() -> None:
    with pytest.raises(UserError, match="control:sound is not a valid checkpoint name"):
        load("control:sound")


def test_a_row_that_does_not_beat_the_controls_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_tasks(monkeypatch)
    runs = [result("a", 60.0), result("b", 40.0), result("a", 60.0, task="linear"), result("b", 40.0, task="linear")]
    control = [result("", 50.0, checkpoint_name="control:pixels", task=task) for task in ("knn", "linear")]
    other = [replace(control[0], data="other", metrics={"top1": 99.0})]
    built = table.build(write_definition(tmp_path), [*runs, *control, *other])
    assert [[cell.mark for cell in row.cells] for row in built.rows] == [
        ["", "†"],
        ["†", ""],
    ]  # an error: lower is better
    assert "Controls, kNN: raw pixels 50.0." in built.notes
    assert "40.0†" in table.render(built, "md") and r"40.0$\dagger$" in table.render(built, "tex")
    assert "†" not in table.render(table.build(write_definition(tmp_path), runs), "md")


def test_controls_run_once_and_say_whether_labels_or_images_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 20)):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 255, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.png")
    copied = tmp_path / "photos/train/cat/0.png"
    (tmp_path / "photos/val/dog/0.png").write_bytes(copied.read_bytes())
    task = KNN(str(tmp_path / "photos"), EvalTransform(32, 32), k=5, k_grid=(5,))
    monkeypatch.setattr(tasks, "find", lambda name: task)
    chosen = definition.load(write_definition(tmp_path, DEFINITION.rpartition("[[columns]]")[0]))
    workspace = Workspace(tmp_path / "work")
    shuffled, duplicates = run_controls(chosen, workspace)
    assert "at chance (the largest class has 50.0 %)" in shuffled
    assert "2.5 % of val" in duplicates
    assert run_controls(chosen, workspace) == [shuffled, duplicates]
    assert len(results.read(workspace.store)[0]) == 2


def test_labels_that_all_neighbours_contradict_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)

    def write(split: str, name: str, number: int, level: int) -> None:
        (tmp_path / "photos" / split / name).mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(level, level + 20, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.png")

    for split, number in itertools.product(("train", "val"), range(12)):
        write(split, "bright", number, 200)
        write(split, "dark", number, 200 if (split, number) == ("val", 3) else 20)
    task = KNN(str(tmp_path / "photos"), EvalTransform(32, 32), k=5, k_grid=(5,))
    monkeypatch.setattr(tasks, "find", lambda name: task)
    chosen = definition.load(write_definition(tmp_path, DEFINITION.rpartition("[[columns]]")[0]))
    workspace = Workspace(tmp_path / "work")
    trained = replace(load("random:resnet18"), name="trained", origin=Origin("pretrain"))
    (evaluation,) = prepare([chosen.columns[0].task], workspace)
    evaluate(evaluation, trained, 0, workspace)
    hint = run_controls(chosen, workspace)[-1]
    assert "1 of 24 val images" in hint and "dark/3.png" in hint and "most of 1 backbones" in hint

    write("train", "dark", 5, 200)
    told = command.run("data", "labels", "photos", "--ckpt", "control:channels", "--split", "train", cwd=tmp_path)
    assert told.stdout.startswith("1 of 24 train images"), told.stderr
    assert "dark/5.png  dark, neighbours: bright" in told.stdout
