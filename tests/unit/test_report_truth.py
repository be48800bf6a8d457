"""Curves and pictures of runs on every data set that has a layout, from its own files: here in miniature.

What is true is given as what was predicted, so that every figure must be perfect.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import miniatures
import numpy as np
import pytest
from PIL import Image

from cgh_bench.data import dense
from cgh_bench.data.layouts import voc as voc_layout
from cgh_bench.data.scenes import write_scenes
from cgh_bench.evaluate import prepare
from cgh_bench.report import breakdown, scenes, truth
from cgh_bench.report.gallery import gallery
from cgh_bench.results import Result


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`CGH_DATA` with every data set."""
    folder = tmp_path_factory.mktemp("data")
    drawn = write_scenes(folder / "scenes", miniatures.TINY)
    for make in (miniatures.coco, miniatures.voc, miniatures.cityscapes, miniatures.ade20k):
        make(drawn, folder)
    return folder


@pytest.fixture(autouse=True)
def fetched(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CGH_DATA", str(root))
    dense._found.cache_clear()
    yield
    dense._found.cache_clear()


def a_run(task: str, tmp_path: Path) -> Result:
    evaluation = prepare(task)
    data = dense.locate(evaluation.task.data, tmp_path / "cache").fingerprint
    (tmp_path / task).mkdir()
    return Result(
        task=task,
        protocol=evaluation.protocol,
        metrics={"mIoU": 1.0},
        checkpoint="0" * 16,
        checkpoint_name="a trunk",
        origin={},
        data=data,
        config={"data": evaluation.task.data},
        seed=0,
        work=task,
    )


@pytest.mark.parametrize("task", ["voc_seg", "cityscapes_seg", "ade20k_seg"])
def test_maps_are_drawn_beside_the_truth_of_every_layout(task: str, root: Path, tmp_path: Path) -> None:
    run, notes = a_run(task, tmp_path), []
    folder = truth.folder(run, tmp_path, notes)
    assert folder is not None
    maps = truth.maps(run.config["data"], folder, {})
    assert maps is not None
    assert len(maps.pairs) == miniatures.TINY.val_scenes
    (tmp_path / task / "predictions").mkdir()
    for image, true in maps.pairs:
        shutil.copy(true, tmp_path / task / "predictions" / f"{image.stem}.png")
    shown = gallery([[("A", run)]], tmp_path, tmp_path, notes)
    assert len(shown.segmentations) == scenes.SHOWN
    for scene in shown.segmentations:
        wanted, given = scene.pictures
        assert wanted.row == scenes.TRUTH
        assert given.picture == wanted.picture
        assert given.content == wanted.content != "background only"
    charts = breakdown.draw(run, prepare(task).task, tmp_path, tmp_path, notes)
    assert set(charts[-1].figure["data"][0]["x"]) == {100.0}
    assert len(charts) == (1 if task == "ade20k_seg" else 2)
    assert notes == []


def test_classes_have_the_names_that_a_whole_run_gives_them(root: Path) -> None:
    names = [f"thing {n}" for n in range(150)]
    maps = truth.maps("ade20k", root / "ADEChallengeData2016", {f"IoU.{name}": 1.0 for name in names})
    assert maps is not None
    assert maps.values == (truth.NO_CLASS, *names)
    fewer = truth.maps("ade20k", root / "ADEChallengeData2016", {"IoU.thing 0": 1.0})
    assert fewer is not None
    assert fewer.values[:3] == (truth.NO_CLASS, "class 1", "class 2")
    voc = truth.maps("voc2012_aug", root / "VOCdevkit", {})
    assert voc is not None
    assert voc.values == (truth.BACKGROUND, *voc_layout.CLASSES)


def lines_of(objects: truth.Objects) -> list[dict[str, Any]]:
    return [{key: line[key] for key in line if key not in ("id", "area", "iscrowd")} for line in objects.annotations]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("task", ["coco_det", "voc_det"])
def test_boxes_are_drawn_beside_the_truth_of_every_layout(task: str, named: bool, root: Path, tmp_path: Path) -> None:
    """detectron2 gives VOC's classes by their places, mmdetection by their names."""
    run, notes = a_run(task, tmp_path), []
    folder = truth.folder(run, tmp_path, notes)
    assert folder is not None
    objects = truth.objects(run.config["data"], folder)
    assert objects is not None
    lines = [{**line, "score": 0.9} for line in lines_of(objects)]
    if named and task == "voc_det":
        lines = [{**line, "category": voc_layout.CLASSES[line.pop("category_id")]} for line in lines]
    (tmp_path / task / "predictions.json").write_text(json.dumps(lines))
    shown = gallery([[("A", run)]], tmp_path, tmp_path, notes)
    assert shown.detections
    for scene in shown.detections:
        wanted, given = scene.pictures
        assert given.content.replace(" 0.90", "") == wanted.content
    charts = breakdown.draw(run, prepare(task).task, tmp_path, tmp_path, notes)
    assert [set(chart.figure["data"][0]["x"]) for chart in charts[1:]] == ([{100.0}] if task == "coco_det" else [])
    assert notes == []


def test_vocs_boxes_begin_at_0_and_reach_the_last_pixel(root: Path) -> None:
    objects = truth.objects("voc0712", root / "VOCdevkit")
    assert objects is not None
    drawn = json.loads((root / "scenes/val/annotations.json").read_text())
    boxes = {tuple(annotation["bbox"]) for annotation in drawn["annotations"]}
    assert {line["bbox"] for line in objects.annotations} <= boxes
    assert all((objects.images / entry["file_name"]).is_file() for entry in objects.shown)


def test_data_that_are_gone_or_others_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, notes = a_run("voc_seg", tmp_path), []
    assert truth.folder(dataclasses.replace(run, data="other"), tmp_path, notes) is None
    monkeypatch.setenv("CGH_DATA", str(tmp_path / "nowhere"))
    assert truth.folder(run, tmp_path, notes) is None
    assert "other voc2012_aug than today's" in notes[0]
    assert "voc2012_aug is not complete: there is no folder" in notes[1]


def test_wide_images_are_made_small(tmp_path: Path) -> None:
    drawn = Image.fromarray(np.zeros((1024, 2048, 3), np.uint8))
    scenes._uri(drawn)
    assert drawn.size == (scenes.WIDEST, scenes.WIDEST // 2)
