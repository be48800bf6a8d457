"""Folders of people's own, fine-tuned and reported by one command in each framework."""

import dataclasses
import json
import sys
from pathlib import Path

import command
import dense_folder
import own_folders
import pytest

from cgh_bench import outcomes, results
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.checkpoint import Preprocessing, random_checkpoint, save
from cgh_bench.core.errors import UserError
from cgh_bench.foreign import frameworks
from cgh_bench.reading.loading import load
from cgh_bench.workspace import Workspace


def require(framework: str) -> None:
    try:
        frameworks.require_installed(framework)
    except UserError as absent:
        pytest.skip(str(absent))


OPENMMLAB = Path(sys.prefix, "openmmlab")
OBJECTS = {"mmdet": "animals_det", "detectron2": "animals_det_detectron2"}
SETTINGS = {
    "mmdet": (),  # with one, another process of the framework is asked about it: `test_transfer`
    "detectron2": ("--set=settings=SOLVER.IMS_PER_BATCH=2,MODEL.ROI_HEADS.SCORE_THRESH_TEST=0.0",),
}


CAFFE = Preprocessing("BGR", 255.0, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))


def evaluated(tmp_path: Path, task: str, *arguments: str) -> results.Result:
    """The result of a backbone that takes images as Caffe's do."""
    backbone = dataclasses.replace(random_checkpoint("resnet18"), name="mine", preprocessing=CAFFE)
    save(backbone, tmp_path / "mine.safetensors")
    done = command.run("eval", task, "--ckpt=mine.safetensors", "--set=iterations=2", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (result,), _ = results.read(Workspace(tmp_path / "work").store)
    assert not result.protocol.endswith(task)
    assert (tmp_path / "work" / result.work / "loaded.json").is_file()
    return result


@pytest.mark.parametrize("framework", ["mmdet", pytest.param("detectron2", marks=pytest.mark.slow)])
def test_a_folder_in_cocos_form_is_fine_tuned_and_reported(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids with gaps, polygons and run lengths mixed, no area and no iscrowd: all of it is trained on.

    In OpenMMLab's own packages, if `make providers` has put them there; other tests use the forks.
    """
    require(framework)
    has_own = OPENMMLAB.is_dir() and framework == "mmdet"
    if has_own:
        monkeypatch.setenv("PYTHONPATH", str(OPENMMLAB))
    own_folders.coco(tmp_path / "squares")
    result = evaluated(tmp_path, OBJECTS[framework], "--data=squares", *SETTINGS[framework])
    folder = tmp_path / "work" / result.work
    assert result.config["data"] == "squares" and result.overridden == ()
    assert set(result.metrics) == {f"{kind}_{ap}" for kind in ("box", "mask") for ap in ("AP", "AP50", "AP75")}
    assert ("MMEngine: 0.10.7" in (folder / "log.txt").read_text()) == has_own
    measured, lines, loaded = (
        json.loads((folder / f"{n}.json").read_text()) for n in ("metrics", "predictions", "loaded")
    )
    assert len(lines) == measured["detections"] > 0
    assert set(lines[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert loaded["given"] == loaded["arrived"] > 0 and loaded["in_force"]["channel_order"] == "BGR"
    assert loaded["in_force"]["mean_std"] == pytest.approx([*CAFFE.mean, *CAFFE.std])
    trained = load(folder / "model.pth")
    assert (trained.architecture, trained.preprocessing) == (ResNet("resnet18"), CAFFE)
    if framework == "mmdet":
        assert {each.name: each.kind for each in trained.origin.properties}["mean"] == "stated"
    assert {name for name in measured if "_AP." in name} <= {
        f"{k}_AP.{c}" for k in ("box", "mask") for c in own_folders.CLASSES
    }
    answers = outcomes.load(folder)
    assert answers.classes == own_folders.CLASSES
    assert answers.metrics() == pytest.approx(result.metrics)
    listed = command.run("results", "list", cwd=tmp_path)
    assert result.protocol in listed.stdout
    row = f'[[rows]]\nlabel = "mine"\ncheckpoint = "{result.checkpoint_name}"\n'
    column = f'[[columns]]\nheader = "AP"\nmetric = "box_AP"\ntask = "{result.task}"\ndata = "squares"\n'
    (tmp_path / "own.toml").write_text(f'title = "own"\ndescription = "mine"\n{row}{column}')
    table = command.run("table", "own.toml", "--format=csv", cwd=tmp_path)
    assert result.protocol in table.stdout and table.returncode == 0
    assert command.run("report", "-o", "site", cwd=tmp_path).returncode == 0
    assert f"{OBJECTS[framework]} on squares" in (tmp_path / "site/index.html").read_text()


@pytest.mark.slow
def test_keypoints_of_persons_are_fine_tuned_and_judged_one_by_one(tmp_path: Path) -> None:
    require("detectron2")
    own_folders.coco(tmp_path / "persons", keypoints=True)
    sizes = "INPUT.MIN_SIZE_TRAIN=[96],INPUT.MIN_SIZE_TEST=96,MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=8"
    more = "SOLVER.IMS_PER_BATCH=2,DATALOADER.NUM_WORKERS=0,TEST.PRECISE_BN.NUM_ITER=2,TEST.DETECTIONS_PER_IMAGE=9"
    settings = f"--set=settings={sizes},{more},MODEL.ROI_HEADS.SCORE_THRESH_TEST=0.0"
    result = evaluated(tmp_path, "coco_keypoints_any", "--data=persons", settings)
    folder = tmp_path / "work" / result.work
    assert len(json.loads((folder / "predictions.json").read_text())[0]["keypoints"]) == 51
    assert outcomes.load(folder).metrics() == pytest.approx(result.metrics)
    assert command.run("report", "-o", "site", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_a_folder_in_yolos_form_is_fine_tuned_on_boxes_alone(tmp_path: Path) -> None:
    require("mmdet")
    own_folders.yolo(tmp_path / "squares")
    settings = "batch_size=2,train_dataloader.num_workers=0,train_dataloader.persistent_workers=false"
    more = "test_dataloader.num_workers=0,model.test_cfg.rcnn.score_thr=0.0"
    result = evaluated(tmp_path, "coco_quick", "--data=squares", f"--set=settings={settings},{more}")
    assert set(result.metrics) == {"box_AP", "box_AP50", "box_AP75"}


@pytest.mark.parametrize("framework", OBJECTS)
def test_boxes_without_masks_are_refused_before_masks_are_trained(framework: str, tmp_path: Path) -> None:
    require(framework)
    own_folders.coco(tmp_path / "boxes", masks=False)
    refused = command.run("eval", OBJECTS[framework], "--ckpt=random:resnet18", "--data=boxes", cwd=tmp_path)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    boxes_only = {"mmdet": "animals_det_quick", "detectron2": "coco_retinanet_detectron2"}[framework]
    assert "has only a box" in refused.stderr and boxes_only in refused.stderr
    assert not (tmp_path / "work/eval").exists()


@pytest.mark.slow
def test_a_folder_of_masks_is_fine_tuned_and_reported(tmp_path: Path) -> None:
    require("mmseg")
    dense_folder.write(tmp_path / "ground")
    result = evaluated(tmp_path, "animals_seg", "--data=ground", "--set=settings=batch_size=2")
    folder = tmp_path / "work" / result.work
    measured = json.loads((folder / "metrics.json").read_text())
    assert {name for name in measured if name.startswith("IoU.")} <= {f"IoU.{name}" for name in dense_folder.CLASSES}
    assert outcomes.load(folder).metrics() == pytest.approx(result.metrics)
    assert len(list((folder / "predictions").iterdir())) == 3
