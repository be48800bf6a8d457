"""Real mmdetection and mmsegmentation on a handful of embedded scenes."""

import dataclasses
import functools
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from framework_models import run_here
from miniatures import TINY
from PIL import Image

from cgh_bench.checkpoint import random_checkpoint, save
from cgh_bench.converters.base import find as find_converter
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.data import dense
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.image_set import DetectionScenes
from cgh_bench.foreign import frameworks, process
from cgh_bench.tasks import find
from cgh_bench.tasks.base import Folders

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from cgh_bench.transfer_configs.contract import processes
from cgh_bench.transfer_configs.contract.watch import Watch
from cgh_bench.transfer_configs.openmmlab import train  # first: it provides mmcv's operators

ITERATIONS = 6
FEW = "batch_size=4"


@pytest.fixture(scope="module", autouse=True)
def tiny_scenes():
    """`animal_scenes`, but twelve of them."""
    entry = DetectionScenes("a few scenes", "embedded", functools.partial(write_scenes, settings=TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "catalog", lambda: {"animal_scenes": entry})
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def resnet18():
    return random_checkpoint("resnet18")


def run(task, checkpoint, folder: Path, cache: Path) -> dict[str, float]:
    """Evaluate once on the data that the task names."""
    return task.run(checkpoint, task.load_data(cache), Folders(folder, cache), 0)


def shortened(name: str, *settings: str):
    return dataclasses.replace(find(name), iterations=ITERATIONS, settings=settings)


def read(path: Path):
    return json.loads(path.read_text())


def train_here(work: Path, data: dense.DenseData, weights: Path) -> int | None:
    """animals_seg as `process.run` starts it, but in this process, which has the framework loaded; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CGH_DATA", str(data.root))
        options = (f"--weights={weights}", f"--work={work}", "--iterations=4", "--resume", "--set", "batch_size=2")
        return run_here("mmseg", "train", "animals_seg", *options)


@pytest.fixture(scope="module")
def weights(resnet18, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    find_converter("mmseg").write(resnet18, path)
    return path


@pytest.fixture(scope="module")
def trained(weights, cache, tmp_path_factory):
    """The folder of a whole run of animals_seg, and what it measured."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train_here(folder, dense.locate("animal_scenes", cache), weights) == 0
    return folder, read(folder / "metrics.json")


def test_segmentation_arrives_trains_and_reports(trained):
    folder, metrics = trained
    assert {"mIoU", "mAcc", "aAcc"} < set(metrics)
    assert 0 < metrics["mIoU"] < 100
    classes = [value for name, value in metrics.items() if name.startswith("IoU.")]
    assert metrics["mIoU"] == pytest.approx(np.mean(classes))
    loaded = read(folder / "loaded.json")
    assert (loaded["given"], loaded["arrived"], loaded["missing"], loaded["unfilled"]) == (120, 120, [], [])
    predicted = np.asarray(Image.open(folder / "predictions" / "000001.png"))
    assert predicted.shape == (96, 96)
    assert predicted.max() <= 10


def test_the_reported_iou_is_that_of_the_pictures(trained, cache):
    folder, metrics = trained
    truth = cache / "animal_scenes" / "val" / "masks"
    pairs = [(np.asarray(Image.open(p)), np.asarray(Image.open(truth / p.name))) for p in folder.glob("predictions/*")]
    assert len(pairs) == TINY.val_scenes
    guessed, real = (np.stack(side) for side in zip(*pairs, strict=True))
    ious = [
        ((guessed == c) & (real == c)).sum() / ((guessed == c) | (real == c)).sum()
        for c in range(11)
        if ((guessed == c) | (real == c)).any()
    ]
    assert metrics["mIoU"] == pytest.approx(100 * np.mean(ious))
    task = find("animals_seg")
    answers = task.outcomes(task.load_data(cache), folder).metrics()
    assert answers == pytest.approx({name: metrics[name] for name in answers}) and "mIoU" in answers


def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(trained, weights, cache, tmp_path, monkeypatch):
    def interrupting(watch, phase, done, *_):
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    data, folder = dense.locate("animal_scenes", cache), tmp_path / "part"
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "tick", interrupting)
        assert train_here(folder, data, weights) == processes.INTERRUPTED
    assert torch.load(folder / "state.pth", weights_only=True)["iteration"] == 2
    assert train_here(folder, data, weights) == 0
    assert read(folder / "metrics.json") == trained[1]
    resumed, whole = (torch.load(f / "model.pth", weights_only=True)["state_dict"] for f in (folder, trained[0]))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.fixture(scope="module")
def segmented(resnet18, cache, tmp_path_factory):
    """A whole run of animals_seg in a process of its own: its folder and what it returned."""
    folder = tmp_path_factory.mktemp("seg") / "run"
    return folder, run(shortened("animals_seg", FEW), resnet18, folder, cache)


@pytest.mark.slow
def test_ctrl_c_reaches_the_framework_and_the_run_ends_as_an_uninterrupted_one(
    segmented, resnet18, cache, tmp_path, monkeypatch
):
    folder, task = tmp_path / "run", shortened("animals_seg", FEW)

    @contextmanager
    def interrupting(title, total):
        def tick(done, note=""):
            raise KeyboardInterrupt

        yield tick

    with monkeypatch.context() as patch:
        patch.setattr(process, "progress", interrupting)
        with pytest.raises(KeyboardInterrupt):
            run(task, resnet18, folder, cache)
    saved = torch.load(folder / "state.pth", weights_only=True)["iteration"]
    assert 1 <= saved < ITERATIONS
    assert run(task, resnet18, folder, cache) == segmented[1]
    resumed, whole = (torch.load(f / "model.pth", weights_only=True)["state_dict"] for f in (folder, segmented[0]))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_after_val_was_repaired_the_trained_network_is_only_evaluated(segmented, resnet18, cache, tmp_path):
    folder, task = shutil.copytree(segmented[0], tmp_path / "run"), shortened("animals_seg", FEW)
    trained = (folder / "model.pth").stat().st_mtime_ns
    there = task.load_data(cache)
    shutil.copytree(there.root / "animal_scenes", tmp_path / "animal_scenes")
    mask = tmp_path / "animal_scenes/val/masks/000001.png"
    Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
    repaired = dense.Located(tmp_path, "repaired", there.train)
    assert task.run(resnet18, repaired, Folders(folder, cache), 0) != segmented[1]
    assert (folder / "model.pth").stat().st_mtime_ns == trained


@pytest.mark.slow
def test_weights_that_do_not_fit_fail_by_name(resnet18, cache, tmp_path):
    weights = dict(resnet18.weights)
    del weights["conv1.weight"]
    weights["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    weights["layer5.0.conv1.weight"] = torch.zeros(1)
    torch.save(weights, tmp_path / "weights.pth")
    framework = frameworks.find("mmseg")
    command = [
        *framework.command("train"),
        f"--config={framework.path / 'animals_seg.py'}",
        f"--weights={tmp_path / 'weights.pth'}",
        f"--work={tmp_path / 'run'}",
    ]
    data = {"CGH_DATA": str(dense.locate("animal_scenes", cache).root)}
    done = subprocess.run(command, capture_output=True, text=True, env=process.os.environ | data, check=False)
    assert done.returncode == 1
    assert "the weights did not arrive: 2 of 120 tensors" in done.stderr
    loaded = read(tmp_path / "run" / "loaded.json")
    assert loaded["missing"] == ["layer1.0.conv1.weight", "layer5.0.conv1.weight"]
    assert loaded["unfilled"] == ["backbone.conv1.weight"]
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.slow
def test_a_dry_run_asks_the_framework_whether_it_accepts_the_settings(resnet18, cache, tmp_path):
    """In the default set: `test_tasks_transfer.py` that it is asked, `test_openmmlab_train.py` what it refuses."""
    task = shortened("animals_seg", "model.backbone.dpeth=34")
    with pytest.raises(UserError, match=r"model\.backbone\.dpeth: no 'dpeth' in the protocol; .*depth"):
        task.plan(resnet18, task.load_data(cache), Folders(tmp_path / "run", cache))


def test_mixed_precision_is_refused_on_cpus_before_anything_is_built(tmp_path, monkeypatch):
    save(random_checkpoint("vit_tiny_patch16_32"), weights := tmp_path / "weights.safetensors")
    options = (
        f"--config={frameworks.protocol_file('mmdet', 'coco_vitdet')} --weights={weights} --work={tmp_path / 'run'}"
    )
    monkeypatch.setattr(sys, "argv", ["openmmlab.train", *options.split(), "--set", "model.backbone.drop_path=0"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit, match="needs a GPU; here use --set settings=optim_wrapper.type=OptimWrapper"):
        train.main()
    assert not (tmp_path / "run").exists()


def test_another_architecture_is_refused_before_anything_runs(cache, tmp_path):
    task = find("animals_det")
    vit = random_checkpoint("vit_tiny_patch16_32")
    with pytest.raises(UserError, match=vit.architecture.name):
        run(task, vit, tmp_path / "run", cache)
    with pytest.raises(UserError, match=vit.architecture.name):
        task.plan(vit, task.load_data(cache), Folders(tmp_path / "run", cache))
    assert not (tmp_path / "run").exists()


def test_a_stride_in_the_other_place_fails_the_check(tmp_path):
    """A backbone of the original MSRA kind in a model that strides like torchvision's."""
    checkpoint = random_checkpoint("resnet50")
    account = {"given": len(checkpoint.weights), "arrived": len(checkpoint.weights), "missing": [], "unfilled": []}
    in_force = {"channel_order": "RGB", "mean_std": [123.675, 116.28, 103.53, 58.395, 57.12, 57.375]}
    for stride_in_1x1 in (False, True):
        text = json.dumps(account | {"in_force": in_force | {"stride_in_1x1": stride_in_1x1}})
        (tmp_path / "loaded.json").write_text(text)
        if stride_in_1x1:
            with pytest.raises(CheckFailed, match="stride"):
                process._require_arrived(tmp_path, checkpoint, len(checkpoint.weights))
        else:
            process._require_arrived(tmp_path, checkpoint, len(checkpoint.weights))
    caffe = dataclasses.replace(checkpoint.architecture, stride_in_1x1=True)
    told = frameworks.openmmlab_settings(dataclasses.replace(checkpoint, architecture=caffe))
    assert told["model.backbone.style"] == "caffe"


@pytest.mark.slow
def test_two_processes_share_the_batch(resnet18, cache, tmp_path, monkeypatch):
    """As on two GPUs, but over gloo."""
    monkeypatch.setenv("CGH_GPUS", "2")
    monkeypatch.setenv("CGH_IMAGES_AT_A_TIME", "2")  # of the four that each process has
    folder = tmp_path / "run"
    metrics = run(shortened("animals_seg"), resnet18, folder, cache)
    assert 0 < metrics["mIoU"] < 100
    assert len(list((folder / "predictions").iterdir())) == TINY.val_scenes
    assert read(folder / "loaded.json")["arrived"] == 120
    assert "Distributed launcher: pytorch" in (folder / "log.txt").read_text()


CTRL_C = """
import sys
import time
from cgh_bench.cli import main
from cgh_bench.data import dense
from cgh_bench.data.demo.composition import SceneSettings
from cgh_bench.data.image_set import DetectionScenes
from cgh_bench.data.demo.scenes import write_scenes

tiny = SceneSettings(train_scenes=8, val_scenes=4, side=96, most_animals=2)
entry = DetectionScenes("a few scenes", "embedded", lambda out: write_scenes(out, tiny))
dense.catalog = lambda: {"animal_scenes": entry}
main()
"""


@pytest.mark.slow
def test_ctrl_c_at_the_command_is_one_line_and_leaves_nothing_running(tmp_path):
    arguments = ["eval", "animals_seg", "--ckpt", "random:resnet18", "--set", "iterations=5000"]
    command = [sys.executable, "-c", CTRL_C, *arguments]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    try:
        while not list(tmp_path.glob("work/eval/*/*/seed0/loaded.json")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in errors
    (state,) = tmp_path.glob("work/eval/*/*/seed0/state.pth")
    assert torch.load(state, weights_only=True)["iteration"] >= 1
    assert not list(processes_in(tmp_path))


def processes_in(folder: Path) -> Iterator[Path]:
    """Those that were started in the folder; processes come and go."""
    for running in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (running / "cwd").readlink() == folder:
                yield running
