"""Backbones carried into the frameworks as they are: reduced networks of each form on a handful of embedded scenes."""

import dataclasses
import functools
import itertools
import json
import os
import subprocess
from pathlib import Path

import command
import miniatures
import numpy as np
import pytest
import torch
from PIL import Image

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.backbones.timm import Timm
from cgh_bench.checkpoint import Checkpoint, Origin, Preprocessing
from cgh_bench.core.errors import UserError
from cgh_bench.data import dense
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.image_set import DetectionScenes
from cgh_bench.foreign import carriage, frameworks
from cgh_bench.reading.loading import load
from cgh_bench.tasks import find
from cgh_bench.tasks.base import Folders

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

SMALL = {
    "resnet18": ResNet("resnet18"),
    "convnext": Timm("convnext_atto", (("depths", (1, 1, 2, 1)), ("dims", (8, 8, 16, 16)))),
    "swin": Timm(
        "swin_tiny_patch4_window7_224",
        (("img_size", 64), ("window_size", 4), ("embed_dim", 8), ("depths", (1, 1, 2, 1)), ("num_heads", (1, 2, 2, 4))),
    ),
    "vit": Timm("vit_tiny_patch16_224", (("img_size", 32), ("embed_dim", 16), ("depth", 3), ("num_heads", 2))),
    "patch14": Timm(
        "vit_small_patch14_reg4_dinov2", (("img_size", 28), ("embed_dim", 16), ("depth", 3), ("num_heads", 2))
    ),
}
TASKS = ("animals_det_any", "animals_seg_any", "animals_det_any_detectron2")
QUICK = ("patch14", "animals_det_any_detectron2")
RUNS = (*itertools.product(SMALL, TASKS), ("convnext", "animals_det_quick"), ("vit", "animals_seg_quick"))


@pytest.fixture(scope="module", autouse=True)
def tiny_scenes():
    """`animal_scenes`, but twelve of them."""
    entry = DetectionScenes("a few scenes", "embedded", functools.partial(write_scenes, settings=miniatures.TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "catalog", lambda: {"animal_scenes": entry})
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Four images of noise of two classes, half of them to search among."""
    folder, noise = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for path in (folder / split / name / "0.png" for split in ("train", "val") for name in ("a", "b")):
        path.parent.mkdir(parents=True)
        Image.fromarray(noise.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    return folder


def small(kind: str) -> Checkpoint:
    torch.manual_seed(0)
    odd = Preprocessing("BGR", 1.0, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    return Checkpoint(kind, SMALL[kind], SMALL[kind].build().state_dict(), odd, Origin("test"))


def saved_by(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of the fine-tuned network, wherever its framework has them in the file."""
    saved = torch.load(run / "model.pth", weights_only=True)
    return saved["model"] if "model" in saved else saved["state_dict"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(kind, name, marks=() if (kind, name) == QUICK else pytest.mark.slow) for kind, name in RUNS],
)
def test_it_arrives_computes_the_same_trains_reports_and_is_read_back(kind, name, cache, photos, tmp_path):
    task, checkpoint = dataclasses.replace(find(name), iterations=2), small(kind)
    if task.framework == "detectron2":
        task = dataclasses.replace(task, settings=("SOLVER.IMS_PER_BATCH=2",))
    try:
        frameworks.require_installed(task.framework)
    except UserError as absent:
        pytest.skip(str(absent))
    metrics = task.run(checkpoint, task.load_data(cache), Folders(tmp_path / "run", cache), 0)
    assert set(metrics) == {metric.name for metric in task.METRICS}
    loaded = json.loads((tmp_path / "run/loaded.json").read_text())
    assert loaded["given"] == loaded["arrived"] == len(checkpoint.weights)
    assert loaded["in_force"]["channel_order"] == "BGR"
    assert "input" in loaded["stages"] and max(loaded["stages"].values()) < 1e-5
    assert not {"probe.pth", "weights.safetensors", "state.pth"} & {path.name for path in (tmp_path / "run").iterdir()}
    (place,), trained = loaded["into"], saved_by(tmp_path / "run")
    moved = [key for key, tensor in checkpoint.weights.items() if not torch.equal(trained[f"{place}.{key}"], tensor)]
    assert len(moved) > len(checkpoint.weights) / 2
    read_back = load(tmp_path / "run/model.pth")
    assert (read_back.architecture, read_back.preprocessing) == (checkpoint.architecture, checkpoint.preprocessing)
    assert (read_back.name, read_back.origin.source) == (f"{kind}-{task.protocol}", task.framework)
    assert read_back.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(trained[f"{place}.{key}"], tensor) for key, tensor in read_back.weights.items())
    again = command.run("eval", "knn", "--ckpt=run/model.pth", f"--data={photos}", "--set=k=1", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


DETECTION = (
    *("batch_size=2", "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=false"),
    *("test_dataloader.num_workers=0", "model.train_cfg.rcnn.sampler.num=8", "model.test_cfg.rpn.max_per_img=8"),
    *("train_dataloader.dataset.pipeline.1.poly2mask=true", "test_dataloader.dataset.pipeline.1.scale=(128,128)"),
)
SEGMENTATION = (
    *("batch_size=2", "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=false"),
    *("test_dataloader.num_workers=0", "test_dataloader.dataset.pipeline.1.scale=(96,96)"),
    *("train_dataloader.dataset.pipeline.2.scale=(96,96)", "train_dataloader.dataset.pipeline.3.crop_size=(64,64)"),
    *("model.data_preprocessor.size=(64,64)", "model.decode_head.channels=32", "optim_wrapper.type=OptimWrapper"),
)
WINDOWS = (
    *("model.data_preprocessor.test_cfg.size=(64,64)", "model.test_cfg.crop_size=(64,64)"),
    "model.test_cfg.stride=(32,32)",
)
CHOSEN = (
    "train_dataloader.dataset.pipeline.3.transforms.0.0.scales=[(96,96)]",
    "train_dataloader.dataset.pipeline.3.transforms.1.0.scales=[(96,96)]",
    "train_dataloader.dataset.pipeline.3.transforms.1.1.crop_size=(64,80)",
    "train_dataloader.dataset.pipeline.3.transforms.1.2.scales=[(96,96)]",
)
D2 = (
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=8", "MODEL.RPN.POST_NMS_TOPK_TEST=8", "DATALOADER.NUM_WORKERS=0"),
    "SOLVER.IMS_PER_BATCH=2",
)
VITDET = (
    *("TRANSFER.SCALE_JITTER=128", "INPUT.MIN_SIZE_TEST=128", "INPUT.MAX_SIZE_TEST=128", "SOLVER.AMP.ENABLED=false"),
    *D2,
)
PUBLISHED = {
    "coco_vitdet": (
        "vit",
        *(*DETECTION, "optim_wrapper.type=OptimWrapper", "model.data_preprocessor.pad_size_divisor=128"),
        "train_dataloader.dataset.pipeline.3.scale=(128,128)",
        "train_dataloader.dataset.pipeline.4.crop_size=(128,128)",
    ),
    "coco_vitdet_detectron2": (
        "vit",
        "INPUT.MASK_FORMAT=bitmask",
        *VITDET,
    ),
    "lvis_vitdet": ("vit", *VITDET),
    "coco_keypoints_any": (
        "convnext",
        *("INPUT.MIN_SIZE_TRAIN=[96,128]", "INPUT.MIN_SIZE_TEST=96", "TEST.PRECISE_BN.NUM_ITER=2", *D2),
    ),
    "coco_frozen": ("swin", *DETECTION, "train_dataloader.dataset.pipeline.2.scales=[(96,96),(128,128)]"),
    "coco_fpn_swin": ("convnext", *DETECTION, "train_dataloader.dataset.pipeline.2.scale=(128,128)"),
    "coco_cascade": (
        "vit",
        *(setting for setting in DETECTION if "sampler" not in setting),
        *(f"model.train_cfg.rcnn.{stage}.sampler.num=8" for stage in range(3)),
        *(*CHOSEN, "optim_wrapper.type=OptimWrapper"),
    ),
    "coco_dino": (
        "convnext",
        *(setting for setting in DETECTION if not setting.startswith("model.") and "poly2mask" not in setting),
        *(*CHOSEN, "model.num_queries=20", "model.encoder.num_layers=1", "model.decoder.num_layers=2"),
        "model.dn_cfg.group_cfg.num_dn_queries=4",
    ),
    "ade20k_linear": (
        "vit",
        *(each for each in SEGMENTATION if "optim" not in each and ".channels" not in each),
        *WINDOWS,
    ),
    "ade20k_upernet_vit": ("vit", *SEGMENTATION, *WINDOWS),
    "ade20k_upernet_convnext": ("convnext", *SEGMENTATION, *WINDOWS),
    "ade20k_upernet_swin": ("swin", *SEGMENTATION),
}


@pytest.fixture(scope="module")
def published_data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    scenes = write_scenes(root / "scenes", miniatures.TINY)
    miniatures.coco(scenes, root)
    miniatures.coco_keypoints(scenes, root)
    miniatures.lvis(scenes, root)
    miniatures.ade20k(scenes, root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_protocol_file_on_a_miniature_of_its_data(name, published_data, cache, tmp_path, monkeypatch):
    """Only sizes, counts, schedule and precision are overridden."""
    monkeypatch.setenv("CGH_DATA", str(published_data))
    kind, *settings = PUBLISHED[name]
    task, checkpoint = dataclasses.replace(find(name), iterations=2, settings=tuple(settings)), small(kind)
    metrics = task.run(checkpoint, task.load_data(cache), Folders(tmp_path / "run", cache), 0)
    assert all(0 <= value <= 100 for value in metrics.values())
    loaded = json.loads((tmp_path / "run/loaded.json").read_text())
    assert loaded["given"] == loaded["arrived"] == len(checkpoint.weights)
    (place,), trained = loaded["into"], saved_by(tmp_path / "run")
    moved = any(not torch.equal(trained[f"{place}.{key}"], tensor) for key, tensor in checkpoint.weights.items())
    assert moved == (name not in ("coco_frozen", "ade20k_linear"))


REINITIALISING = """
import runpy, sys
runpy.run_path(sys.argv.pop(1))
from cgh_bench.transfer_configs.openmmlab import train, transfer
original = transfer.Transfer.before_train
def reinitialised(self, runner):
    original(self, runner)
    runner.model.backbone.network.network.init_weights()
transfer.Transfer.before_train = reinitialised
sys.exit(train.main())
"""


@pytest.mark.slow
def test_weights_that_the_framework_initialises_again_stop_the_run(cache, tmp_path):
    """As in facebookresearch/dinov3 issue 112, where the network has a method of the name that mmengine calls."""
    framework, checkpoint = frameworks.find("mmseg"), small("vit")
    carriage.write(checkpoint, tmp_path / "weights.safetensors")
    done = subprocess.run(
        [
            *(framework.python, "-c", REINITIALISING, str(frameworks.LAUNCHER)),
            f"--config={framework.path / 'animals_seg_any.py'}",
            f"--weights={tmp_path / 'weights.safetensors'}",
            f"--work={tmp_path / 'run'}",
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"CGH_DATA": str(dense.locate("animal_scenes", cache).root)},
        check=False,
    )
    assert done.returncode == 1
    assert "the carried backbone computes something else than the source" in done.stderr
    assert "blocks.0.attn.qkv.weight" in json.loads((tmp_path / "run/loaded.json").read_text())["missing"]
