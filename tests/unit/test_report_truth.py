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

from cgh_bench.data import dense, ground_truth
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.dense import DenseData, Located
from cgh_bench.data.layouts import voc as voc_layout
from cgh_bench.evaluation import protocol_id
from cgh_bench.results import Result
from cgh_bench.site import breakdown, truth
from cgh_bench.site import gallery as galleries
from cgh_bench.site.gallery import gallery
from cgh_bench.tasks import find


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
    name = find(task).data
    data = dense.locate(name, tmp_path / "cache").fingerprint
    (tmp_path / task).mkdir(parents=True)
    return Result(
        task=task,
        protocol=protocol_id(task, find(task)),
        metrics={"mIoU": 1.0},
        checkpoint="0" * 16,
        checkpoint_name="a backbone",
        origin={},
        data=data,
        config={"data": name},
        seed=0,
        work=task,
    )


@pytest.mark.parametrize("task", ["voc_seg", "cityscapes_seg", "ade20k_seg"])
def test_maps_are_drawn_beside_the_truth_of_every_layout(task: str, root: Path, tmp_path: Path) -> None:
    run, notes = a_run(task, tmp_path), []
    data = truth.located(run, "maps", tmp_path, notes)
    assert data is not None
    maps = ground_truth.maps(run.config["data"], data, {})
    assert maps is not None
    assert len(maps.pairs) == miniatures.TINY.val_scenes
    (tmp_path / task / "predictions").mkdir()
    for image, true in maps.pairs:
        shutil.copy(true, tmp_path / task / "predictions" / f"{image.stem}.png")
    shown = gallery([[("A", run)]], tmp_path, tmp_path, notes)
    assert len(shown.segmentations) == ground_truth.SHOWN
    for scene in shown.segmentations:
        wanted, given = scene
        assert wanted.row == galleries.TRUTH
        assert given.picture == wanted.picture
        assert given.content == wanted.content != "background only"
    charts = breakdown.draw(run, find(task), tmp_path, tmp_path, notes)
    assert set(charts[-1].figure["data"][0]["x"]) == {100.0}
    assert len(charts) == (1 if task == "ade20k_seg" else 2)
    assert notes == []


def test_classes_have_the_names_that_a_whole_run_gives_them(root: Path) -> None:
    names = [f"thing {n}" for n in range(150)]
    maps = ground_truth.maps("ade20k", Located(root, "", ""), {f"IoU.{name}": 1.0 for name in names})
    assert maps is not None
    assert maps.values == (ground_truth.NO_CLASS, *names)
    fewer = ground_truth.maps("ade20k", Located(root, "", ""), {"IoU.thing 0": 1.0})
    assert fewer is not None
    assert fewer.values[:3] == (ground_truth.NO_CLASS, "class 1", "class 2")
    voc = ground_truth.maps("voc2012_aug", Located(root, "", ""), {})
    assert voc is not None
    assert voc.values == (ground_truth.BACKGROUND, *voc_layout.CLASSES)


def lines_of(objects: ground_truth.Objects) -> list[dict[str, Any]]:
    return [{key: line[key] for key in line if key not in ("id", "area", "iscrowd")} for line in objects.annotations]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("task", ["coco_det", "voc_det"])
def test_boxes_are_drawn_beside_the_truth_of_every_layout(task: str, named: bool, root: Path, tmp_path: Path) -> None:
    """detectron2 gives VOC's classes by their places, mmdetection by their names."""
    run, notes = a_run(task, tmp_path), []
    data = truth.located(run, "objects", tmp_path, notes)
    assert data is not None
    objects = ground_truth.objects(run.config["data"], data)
    assert objects is not None
    lines = [{**line, "score": 0.9} for line in lines_of(objects)]
    if named and task == "voc_det":
        lines = [{**line, "category": voc_layout.CLASSES[line.pop("category_id")]} for line in lines]
    (tmp_path / task / "predictions.json").write_text(json.dumps(lines))
    shown = gallery([[("A", run)]], tmp_path, tmp_path, notes)
    assert shown.detections
    for scene in shown.detections:
        wanted, given = scene
        assert given.content.replace(" 0.90", "") == wanted.content
    charts = breakdown.draw(run, find(task), tmp_path, tmp_path, notes)
    assert [set(chart.figure["data"][0]["x"]) for chart in charts[1:]] == ([{100.0}] if task == "coco_det" else [])
    assert notes == []


def test_vocs_boxes_begin_at_0_and_reach_the_last_pixel(root: Path) -> None:
    objects = ground_truth.objects("voc0712", Located(root, "", ""))
    assert objects is not None
    drawn = json.loads((root / "scenes/val/annotations.json").read_text())
    boxes = {tuple(annotation["bbox"]) for annotation in drawn["annotations"]}
    assert {line["bbox"] for line in objects.annotations} <= boxes
    assert all((objects.images / entry["file_name"]).is_file() for entry in objects.shown)


def test_data_that_are_gone_or_others_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, notes = a_run("voc_seg", tmp_path), []
    assert truth.located(dataclasses.replace(run, data="other"), "maps", tmp_path, notes) is None
    monkeypatch.setenv("CGH_DATA", str(tmp_path / "nowhere"))
    assert truth.located(run, "maps", tmp_path, notes) is None
    assert "voc2012_aug has changed since the run" in notes[0]
    assert "voc2012_aug is not complete" in notes[1]


def test_wide_images_are_made_small(tmp_path: Path) -> None:
    drawn = Image.fromarray(np.zeros((1024, 2048, 3), np.uint8))
    galleries._uri(drawn)
    assert drawn.size == (galleries.WIDEST, galleries.WIDEST // 2)


def spoil_json(path: Path, change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


DAMAGES = {
    "cut short": ("coco_det", "coco/annotations/instances_val2017.json", lambda p: p.write_text(p.read_text()[:300])),
    "no text": ("coco_det", "coco/annotations/instances_val2017.json", lambda p: p.write_bytes(b"\xff\xfe{}")),
    "another class": (
        "coco_det",
        "coco/annotations/instances_val2017.json",
        lambda p: spoil_json(p, lambda d: [a.update(category_id=999) for a in d["annotations"]]),
    ),
    "no box": (
        "coco_det",
        "coco/annotations/instances_val2017.json",
        lambda p: spoil_json(p, lambda d: [a.pop("bbox") for a in d["annotations"]]),
    ),
    "a list": ("coco_det", "coco/annotations/instances_val2017.json", lambda p: p.write_text("[1, 2]")),
    "no image": ("coco_det", "coco/val2017", lambda p: [image.write_bytes(b"\x89PNG") for image in p.iterdir()]),
    "no XML": ("voc_det", "VOCdevkit/VOC2007/Annotations/val_000001.xml", lambda p: p.write_text("<annotation>")),
    "another class in XML": (
        "voc_det",
        "VOCdevkit/VOC2007/Annotations/val_000001.xml",
        lambda p: p.write_text(p.read_text().replace("<object><name>", "<object><name>grey ")),
    ),
    "no box in XML": (
        "voc_det",
        "VOCdevkit/VOC2007/Annotations/val_000001.xml",
        lambda p: p.write_text(p.read_text().replace("bndbox", "box")),
    ),
    "no map": ("voc_seg", "VOCdevkit/VOC2012/SegmentationClass", lambda p: [m.write_bytes(b"") for m in p.iterdir()]),
    "a map gone": ("ade20k_seg", "ADEChallengeData2016/annotations/validation", shutil.rmtree),
    "no list": ("voc_seg", "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", Path.unlink),
}


def predict(task: str, run: Result, data: DenseData, tmp_path: Path) -> None:
    """What is true, as what was predicted."""
    if not task.endswith("_seg"):
        objects = ground_truth.objects(run.config["data"], data)
        assert objects is not None
        lines = [{**line, "score": 0.9} for line in lines_of(objects)]
        (tmp_path / task / breakdown.DETECTIONS).write_text(json.dumps(lines))
        return
    maps = ground_truth.maps(run.config["data"], data, {})
    assert maps is not None
    (tmp_path / task / breakdown.SEGMENTATIONS).mkdir()
    for image, true in maps.pairs:
        shutil.copy(true, tmp_path / task / breakdown.SEGMENTATIONS / f"{image.stem}.png")


@pytest.mark.parametrize("damage", DAMAGES)
def test_data_that_are_damaged_while_pages_are_served_end_in_a_note(
    damage: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has found them whole reads them again for each page."""
    task, path, spoil = DAMAGES[damage]
    copy = Path(shutil.copytree(root, tmp_path / "data"))
    monkeypatch.setenv("CGH_DATA", str(copy))
    run, notes = a_run(task, tmp_path), []
    data = truth.located(run, find(task).ANNOTATED, tmp_path, notes)
    assert data is not None
    predict(task, run, data, tmp_path)
    spoil(copy / path)
    shown = gallery([[("A", run)]], tmp_path, tmp_path, notes)
    assert (list(shown.detections), list(shown.segmentations)) == ([], [])
    assert len(notes) == 1
    assert "no pictures" in notes[0] or notes[0].startswith("No ")
    breakdown.draw(run, find(task), tmp_path, tmp_path, notes)
    assert all("\n" not in note for note in notes)


@pytest.mark.parametrize(
    "text",
    [
        '[{"image_id": 1',
        "{}",
        "[1, 2]",
        '"text"',
        '[{"category_id": 1}]',
        '[{"image_id": IMAGE, "score": 0.9, "category_id": 999, "bbox": [1, 2, 3, 4]}]',
        '[{"image_id": IMAGE, "score": 0.9, "category": "unicorn", "bbox": [1, 2, 3, 4]}]',
        '[{"image_id": IMAGE, "score": 0.9, "category_id": 1, "bbox": [1, 2]}]',
        '[{"image_id": IMAGE, "score": 0.9, "category_id": 1, "bbox": [1, 2, -3, 4]}]',
        '[{"image_id": IMAGE, "score": "high", "category_id": 1, "bbox": [1, 2, 3, 4]}]',
        '[{"image_id": IMAGE, "score": 0.9, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3, 4]]}]',
    ],
)
def test_predictions_that_are_torn_or_others_end_in_a_note(text: str, root: Path, tmp_path: Path) -> None:
    good, bad, notes = a_run("coco_det", tmp_path / "good"), a_run("coco_det", tmp_path / "bad"), []
    good, bad = (dataclasses.replace(run, work=f"{name}/coco_det") for run, name in ((good, "good"), (bad, "bad")))
    data = truth.located(good, "objects", tmp_path, notes)
    assert data is not None
    predict("coco_det", good, data, tmp_path / "good")
    objects = ground_truth.objects("coco", data)
    assert objects is not None
    torn = text.replace("IMAGE", str(objects.shown[0]["id"]))
    (tmp_path / "bad/coco_det" / breakdown.DETECTIONS).write_text(torn)
    shown = gallery([[("A", good), ("B", bad)]], tmp_path, tmp_path, notes)
    assert {tuple(picture.row for picture in scene) for scene in shown.detections} == {(galleries.TRUTH, "A")}
    assert [note.split(";")[0] for note in notes] == ["B: no detections"]
    breakdown.draw(bad, find("coco_det"), tmp_path, tmp_path, notes)
    assert len(notes) <= 2
    assert all("\n" not in note for note in notes)


def test_maps_that_are_torn_end_in_a_note(root: Path, tmp_path: Path) -> None:
    run, notes = a_run("voc_seg", tmp_path), []
    data = truth.located(run, "maps", tmp_path, notes)
    assert data is not None
    predict("voc_seg", run, data, tmp_path)
    for path in (tmp_path / "voc_seg" / breakdown.SEGMENTATIONS).iterdir():
        path.write_bytes(path.read_bytes()[:60])
    assert gallery([[("A", run)]], tmp_path, tmp_path, notes).segmentations == []
    assert breakdown.draw(run, find("voc_seg"), tmp_path, tmp_path, notes) == []
    assert [note.split(";")[0] for note in notes] == ["A: no segmentations", "voc_seg: no confusion matrix"]
    (tmp_path / "voc_seg/metrics.json").write_text("[1]")
    assert ground_truth.maps("ade20k", Located(root, "", ""), truth.metrics(tmp_path / "voc_seg")) is not None


@pytest.mark.parametrize("task", ["cityscapes_inst", "cityscapes_inst_detectron2"])
def test_instances_of_cityscapes_are_drawn_from_its_own_form(task: str, tmp_path: Path) -> None:
    """A list for each image, and a PNG for each mask; a segmentation beside them is drawn, too."""
    run, notes = a_run(task, tmp_path), []
    data = truth.located(run, "objects", tmp_path, notes)
    assert data is not None
    objects = ground_truth.objects(run.config["data"], data)
    assert objects is not None
    folder = tmp_path / task / breakdown.SEGMENTATIONS
    folder.mkdir()
    for entry in objects.shown:
        stem, lines = Path(entry["file_name"]).stem, []
        for number, line in enumerate(a for a in objects.annotations if a["image_id"] == entry["id"]):
            mask = galleries._decode(line["segmentation"], (entry["width"], entry["height"]))
            Image.fromarray(mask.astype(np.uint8)).save(folder / f"{stem}_{number}.png")
            lines.append(f"{stem}_{number}.png {line['category_id']} 0.9\n")
        (folder / f"{stem}_pred.txt").write_text("".join([*lines, f"absent.png {lines[0].split()[1]} 0.1\n"]))
    (tmp_path / task / "metrics.json").write_text('{"mask_AP": 50.0, "mask_AP.car": 40.0, "mask_AP.bus": 60.0}')
    shown = gallery([[("A", run)]], tmp_path, tmp_path, notes)
    assert len(shown.detections) == len(objects.shown) and list(shown.segmentations) == []
    for wanted, given in shown.detections:
        assert given.content.replace(" 0.90", "") == wanted.content
    (chart,) = breakdown.draw(run, find(task), tmp_path, tmp_path, notes)
    assert dict(zip(chart.figure["data"][0]["y"], chart.figure["data"][0]["x"], strict=True)) == {"car": 40, "bus": 60}
    assert notes == []
    next(folder.glob("*_pred.txt")).write_text("cut sho")
    assert list(gallery([[("A", run)]], tmp_path, tmp_path, notes).detections) == []
    assert [note.split(";")[0] for note in notes] == ["A: no detections"]


def test_polygons_are_drawn_as_their_run_lengths(root: Path) -> None:
    polygon = galleries._decode([[10, 10, 30, 10, 30, 20, 10, 20]], (64, 48))
    assert polygon.shape == (48, 64) and polygon.sum() == 200 and polygon[10:20, 10:30].all()


def test_classes_of_voc_have_the_ap_that_the_run_measured(root: Path, tmp_path: Path) -> None:
    run, notes = a_run("voc_det", tmp_path), []
    (tmp_path / "voc_det" / breakdown.DETECTIONS).write_text("[]")
    measured = {"detections": 3, "box_AP": 50.0, "box_AP50": 75.0, "box_AP.cat": 60.0, "box_AP.dog": 40.0}
    (tmp_path / "voc_det/metrics.json").write_text(json.dumps(measured))
    (chart,) = breakdown.draw(run, find("voc_det"), tmp_path, tmp_path, notes)
    assert dict(zip(chart.figure["data"][0]["y"], chart.figure["data"][0]["x"], strict=True)) == {"cat": 60, "dog": 40}
    curves = {"0.5": [1.0, 0.5, 0.0], "0.75": [0.5, 0.0, 0.0]}
    (tmp_path / "voc_det" / breakdown.CURVES).write_text(json.dumps(curves))
    drawn, _ = breakdown.draw(run, find("voc_det"), tmp_path, tmp_path, notes)
    assert [list(line["y"]) for line in drawn.figure["data"]] == list(curves.values())
    (tmp_path / "voc_det" / breakdown.CURVES).unlink()
    (tmp_path / "voc_det/metrics.json").write_text('{"box_AP.cat": "high"}')
    assert breakdown.draw(run, find("voc_det"), tmp_path, tmp_path, notes) == []
    assert notes == []
