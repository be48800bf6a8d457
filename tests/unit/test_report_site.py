"""The site is built whatever is damaged beside the results, and says on which page what is."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cgh_bench import results, tasks
from cgh_bench.core.config import plain
from cgh_bench.evaluation import prepare
from cgh_bench.results import Result
from cgh_bench.site import boards, site
from cgh_bench.workspace import Workspace


def make_result(workspace: Workspace, task: str, recipe: str, *settings: str) -> Result:
    (evaluation,) = prepare([task], workspace, settings)
    return Result(
        task=task,
        protocol=evaluation.protocol,
        metrics={metric.name: 50.0 for metric in tasks.find(task).METRICS},
        checkpoint="00aa",
        checkpoint_name=recipe,
        origin={"source": "pretrain", "recipe": recipe, "seed": 0},
        data=evaluation.data.fingerprint,
        config=plain(evaluation.task),
        seed=0,
        started="2026-09-01T12:00:00+00:00",
        work=f"eval/{task}",
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for grey, place in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        (folder / place).mkdir(parents=True)
        Image.new("RGB", (8, 8), (grey,) * 3).save(folder / place / "1.png")
    return folder


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_a_checkpoint_is_called_by_its_name_and_by_its_id_where_others_have_that_name(tmp_path: Path) -> None:
    made = make_result(Workspace(tmp_path), "animals_knn", "taken")
    named = (("a", "01"), ("a", "01"), ("b", "02"), ("b", "03"), ("taken", "04"), ("", "05"))
    published = [dataclasses.replace(made, origin={}, checkpoint_name=name, checkpoint=id_) for name, id_ in named]
    shown = [subject.label for subject in boards.subjects([made, *published], [], tmp_path)]
    assert shown == ["taken", "a", "b 02", "b 03", "taken 04", "05"]


def test_what_is_damaged_is_named_on_its_page_and_the_rest_is_built(tmp_path: Path) -> None:
    store = tmp_path / "results.jsonl"
    workspace = Workspace(tmp_path)
    for task, recipe in (("animals_knn", "damaged"), ("animals_linear", "whole")):
        results.append(store, make_result(workspace, task, recipe))
    store.open("a").write('{"schema": 1, "task"\n')
    run = tmp_path / "eval/animals_knn"
    run.mkdir(parents=True)
    for file in ("neighbours.npz", "outcomes.npz"):
        (run / file).write_bytes(b"PK\x03\x04 torn")
    (run / "loaded.json").write_text("[]")
    (tmp_path / "pretrain/damaged/seed0").mkdir(parents=True)
    (tmp_path / "pretrain/damaged/seed0/recipe.json").write_text('{"recipe": {"epochs": "many"')
    (tmp_path / "pretrain/damaged/seed0/log.jsonl").write_text("torn\n")
    (tmp_path / "weights.pth.certificate.json").write_text(json.dumps({"checkpoint": {"id": "00aa"}, "stages": [{}]}))
    index = site.write(store, tmp_path, tmp_path / "site")
    page = text(index.parent / "checkpoints/damaged.html")
    for damaged in (
        "neighbours.npz",
        "outcomes.npz",
        "loaded.json",
        "recipe.json",
        "log.jsonl",
        "weights.pth.certificate.json",
    ):
        assert f"{damaged}" in page
    assert "torn" not in text(index.parent / "checkpoints/whole.html")
    assert "results.jsonl:3" in text(index)
    assert "seed0/recipe.json" in text(index)
    assert (index.parent / "compare.html").is_file()


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda folder: (shutil.rmtree(folder), folder.mkdir())])
def test_results_on_a_dataset_that_is_gone_or_empty_are_still_shown(damage, photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "results.jsonl"
    own = make_result(Workspace(tmp_path), "knn", "mine", f"data={photos}")
    results.append(store, own)
    damage(photos)
    index = site.write(store, tmp_path, tmp_path / "site")
    assert own.protocol in text(index)
    assert "50.0" in text(index.parent / "checkpoints/mine.html")
