"""Every published protocol in OpenMMLab: its own file on its own data set's layout, in miniature.

Only sizes, counts and the schedule are overridden: layers, losses, norms, optimisers, transforms, readers and metrics
are those of the file.
"""

import dataclasses
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import miniatures
import pytest
import torch

from cgh_bench import outcomes, results
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.evaluation import Evaluation, evaluate, protocol_id
from cgh_bench.foreign import process
from cgh_bench.tasks import find
from cgh_bench.workspace import Workspace

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

ITERATIONS = 2
ONE_PROCESS = ("train_dataloader.num_workers=0", "train_dataloader.persistent_workers=false")
BATCH = ("batch_size=2", "test_dataloader.num_workers=0", *ONE_PROCESS)
ROIS = ("model.train_cfg.rcnn.sampler.num=8", "model.test_cfg.rpn.max_per_img=8")
SCALES = "scales=[(96,96),(128,128)]"
DETECTION = (
    *BATCH,
    f"train_dataloader.dataset.pipeline.2.{SCALES}",
    "test_dataloader.dataset.pipeline.1.scale=(96,96)",
    "custom_hooks.0.iterations=2",
)
# COCO's polygons are run lengths in the miniature, which mmdetection can only read so.
COCO = (*DETECTION, *ROIS, "train_dataloader.dataset.pipeline.1.poly2mask=true")
VOC = (
    *(s for s in DETECTION if "pipeline.2" not in s),
    *ROIS,
    *(f"train_dataloader.dataset.datasets.{part}.pipeline.2.{SCALES}" for part in (0, 1)),
)


def segmentation(*parts: str, scaled: bool = True) -> tuple[str, ...]:
    """Smaller crops and images, for the pipelines of training at `parts`."""
    places = [f"train_dataloader.dataset.{part}pipeline" for part in parts]
    sizes = [f"{place}.{3}.crop_size=(65,65)" for place in places]
    scales = [*(f"{place}.2.scale=(96,96)" for place in places), "test_dataloader.dataset.pipeline.1.scale=(96,96)"]
    return (*BATCH, "model.data_preprocessor.size=(65,65)", *sizes, *(scales if scaled else ()))


BOTH = ("datasets.0.", "datasets.1.")
WINDOWS = ("model.test_cfg.crop_size=(65,65)", "model.test_cfg.stride=(43,43)")
SMALL = {
    "voc_det": VOC,
    "coco_det": COCO,
    "coco_det_2x": COCO,
    "coco_fpn": COCO,
    "coco_fpn_4conv1fc": COCO,
    "coco_retinanet": DETECTION,
    "cityscapes_inst": (*DETECTION, *ROIS, "model.test_cfg.rcnn.score_thr=0.0"),
    "voc_seg": (*segmentation(*BOTH), "model.decode_head.channels=32"),
    "voc_seg_moco": (*segmentation(*BOTH, scaled=False), "model.decode_head.channels=32"),
    "voc_seg_linear": (*segmentation(*BOTH), *WINDOWS),
    "cityscapes_seg": (*segmentation(""), *WINDOWS, "model.decode_head.channels=32"),
    "cityscapes_seg_moco": (*segmentation("", scaled=False), "model.decode_head.channels=32"),
    "ade20k_seg": (*segmentation(""), "model.decode_head.channels=32"),
    "ade20k_upernet": (*segmentation(""), "model.decode_head.channels=32"),
}
MADE_BY = {
    "voc0712": miniatures.voc,
    "voc2012_aug": miniatures.voc,
    "coco": miniatures.coco,
    "cityscapes": miniatures.cityscapes,
    "cityscapes_inst": miniatures.cityscapes,
    "ade20k": miniatures.ade20k,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Every data set in miniature."""
    folder = tmp_path_factory.mktemp("data")
    scenes = write_scenes(folder / "scenes", miniatures.TINY)
    for make in dict.fromkeys(MADE_BY.values()):
        make(scenes, folder)
    return folder


@pytest.fixture(scope="module")
def resnet50():
    return random_checkpoint("resnet50")


def small(name: str) -> Evaluation:
    task = dataclasses.replace(find(name), iterations=ITERATIONS, settings=SMALL[name])
    return Evaluation(
        name,
        task,
        task.load_data(Path(os.environ["CGH_DATA"], "cache")),
        protocol_id(name, task),
        ("iterations", "settings"),
    )


def check(result, workspace: Workspace, name: str, checkpoint) -> None:
    task, folder = find(name), workspace.root / result.work
    assert results.read(workspace.store) == ([result], [])
    assert set(result.metrics) == {metric.name for metric in task.METRICS}
    assert all(0 <= value <= 100 for value in result.metrics.values())
    loaded = json.loads((folder / "loaded.json").read_text())
    assert loaded["given"] == loaded["arrived"] == len(checkpoint.weights)
    has_c4 = name in ("voc_det", "coco_det", "coco_det_2x")
    assert loaded["into"] == ["backbone", *(["roi_head.shared_head"] if has_c4 else [])]
    assert any(folder.glob("predictions*"))
    assert (folder / "curves.json").exists() == (name == "voc_det")
    if name == "cityscapes_inst":
        assert any(metric.startswith("mask_AP.") for metric in json.loads((folder / "metrics.json").read_text()))
    if task.framework == "mmdet":
        assert (folder / outcomes.FILE).exists()  # which give the numbers, or the run would have been refused
        assert json.loads((folder / "metrics.json").read_text())["detections"] >= 0
    assert not (folder / "state.pth").exists()


@pytest.mark.slow  # the fast tests are in `test_transfer` and `test_own_data`
@pytest.mark.parametrize("name", SMALL)
def test_the_protocol_file_on_a_miniature_of_its_data(name, root, resnet50, tmp_path, monkeypatch):
    monkeypatch.setenv("CGH_DATA", str(root))
    workspace = Workspace(tmp_path)
    check(evaluate(small(name), resnet50, 0, workspace), workspace, name, resnet50)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_openmmlabs_own_packages_run_it_as_the_forks_do(name, root, resnet50, tmp_path, monkeypatch):
    own = Path(sys.prefix, "openmmlab")
    if not own.is_dir():
        pytest.skip("OpenMMLab's own packages are absent; run `make providers`")
    monkeypatch.setenv("CGH_DATA", str(root))
    monkeypatch.setenv("PYTHONPATH", str(own))
    workspace = Workspace(tmp_path)
    result = evaluate(small(name), resnet50, 0, workspace)
    check(result, workspace, name, resnet50)
    assert "MMEngine: 0.10.7" in (tmp_path / result.work / "log.txt").read_text()


@pytest.mark.slow
def test_a_batch_in_parts_is_the_protocol_still(root, resnet50, tmp_path, monkeypatch):
    monkeypatch.setenv("CGH_DATA", str(root))
    monkeypatch.setenv("CGH_IMAGES_AT_A_TIME", "1")
    workspace = Workspace(tmp_path)
    result = evaluate(small("voc_det"), resnet50, 0, workspace)
    check(result, workspace, "voc_det", resnet50)
    assert result.protocol == small("voc_det").protocol


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("voc_det", "train"),
        ("voc_det", "test"),
        ("coco_fpn", "train"),
        ("coco_retinanet", "train"),
        ("voc_seg", "train"),
        ("ade20k_upernet", "train"),
    ],
)
def test_an_interrupted_run_goes_on_in_every_architecture(name, phase, root, resnet50, tmp_path, monkeypatch):
    """In the test, after PreciseBN, which then is done again."""
    monkeypatch.setenv("CGH_DATA", str(root))
    workspace = Workspace(tmp_path)

    @contextmanager
    def interrupting(title, total):
        def tick(done, note=""):
            if title.endswith(phase):
                raise KeyboardInterrupt

        yield tick

    with monkeypatch.context() as patch:
        patch.setattr(process, "progress", interrupting)
        with pytest.raises(KeyboardInterrupt):
            evaluate(small(name), resnet50, 0, workspace)
    assert list(tmp_path.glob("eval/*/*/seed0/state.pth"))
    result = evaluate(small(name), resnet50, 0, workspace)
    check(result, workspace, name, resnet50)
    whole = evaluate(small(name), resnet50, 0, Workspace(tmp_path / "whole"))
    assert result.metrics == whole.metrics
    folders = workspace.root / result.work, tmp_path / "whole" / whole.work
    resumed, wanted = (torch.load(folder / "model.pth", weights_only=True)["state_dict"] for folder in folders)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in wanted.items())


@pytest.mark.slow
def test_a_frozen_backbone_stays_as_it_was(root, resnet50, tmp_path, monkeypatch):
    monkeypatch.setenv("CGH_DATA", str(root))
    workspace = Workspace(tmp_path)
    result = evaluate(small("voc_seg_linear"), resnet50, 0, workspace)
    trained = torch.load(workspace.root / result.work / "model.pth", weights_only=True)["state_dict"]
    for name, tensor in resnet50.weights.items():
        assert torch.equal(trained[f"backbone.{name}"], tensor), name
