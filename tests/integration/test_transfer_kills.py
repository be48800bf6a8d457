"""Real frameworks that are killed: nothing is left running, and what goes on afterwards ends as if it had not been."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from miniatures import TINY

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.converters.base import find as find_converter
from cgh_bench.data import dense
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.image_set import DetectionScenes
from cgh_bench.foreign import frameworks

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

KILLS = 10
OURS = """
import sys
import torch
from cgh_bench.cli import main
from cgh_bench.data import dense
from cgh_bench.data.demo.composition import SceneSettings
from cgh_bench.data.image_set import DetectionScenes
from cgh_bench.data.demo.scenes import write_scenes

tiny = SceneSettings(train_scenes=8, val_scenes=4, side=96, most_animals=2)
entry = DetectionScenes("a few scenes", "embedded", lambda out: write_scenes(out, tiny))
dense.catalog = lambda: {"animal_scenes": entry}
torch.cuda.device_count = lambda: 2  # processes on CPUs do as well here
main()
"""
THEIRS = """
import runpy, sys
runpy.run_path(sys.argv.pop(1))
from cgh_bench.transfer_configs.contract import watch
from cgh_bench.transfer_configs.openmmlab import train
watch.SECONDS_BETWEEN_SAVES = 0.0
sys.exit(train.main())
"""
"""`train.py`, saving its state after every step."""


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [0, 2])
def test_a_framework_does_not_outlive_us(gpus, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["eval", "animals_seg", "--ckpt", "random:resnet18", "--set", "iterations=5000", f"--gpus={gpus}"]
    ours = subprocess.Popen([sys.executable, "-c", OURS, *arguments], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: list(tmp_path.glob("work/eval/*/*/seed0/loaded.json")), 300)
        assert len(frameworks_in(tmp_path)) > gpus
    finally:
        ours.kill()
        ours.wait()
    wait_until(lambda: not frameworks_in(tmp_path), 10)
    assert not list(tmp_path.glob("work/eval/*/*/seed0/state.pth"))  # they did not go on to their next step


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "protocol"), [("mmdet", "animals_det"), ("mmseg", "animals_seg")])
def test_killed_at_any_moment_it_goes_on_to_the_same_end(framework, protocol, tmp_path, monkeypatch):
    entry = DetectionScenes("a few scenes", "embedded", functools.partial(write_scenes, settings=TINY))
    monkeypatch.setattr(dense, "catalog", lambda: {"animal_scenes": entry})
    data = dense.locate("animal_scenes", tmp_path / "cache").root
    weights = tmp_path / "weights.pth"
    find_converter(framework).write(random_checkpoint("resnet18"), weights)
    started = time.monotonic()
    assert start(framework, protocol, weights, tmp_path / "whole", data).wait() == 0
    seconds = time.monotonic() - started
    seed = time.time_ns() % 2**32
    print(f"moments drawn with seed {seed}, from {seconds:.1f} s")
    moments = random.Random(seed)
    kills = runs = 0
    while kills < KILLS:
        folder = tmp_path / f"run{runs}"
        while not (folder / "metrics.json").exists():
            process = start(framework, protocol, weights, folder, data)
            try:
                assert process.wait(moments.uniform(0.2, 1) * seconds if kills < KILLS else None) == 0
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
        assert_same(folder, tmp_path / "whole")
        runs += 1
    print(f"{kills} kills in {runs} runs")


def start(framework: str, protocol: str, weights: Path, folder: Path, data: Path) -> subprocess.Popen:
    known = frameworks.find(framework)
    settings = ["model.test_cfg.rcnn.score_thr=0.0"] if framework == "mmdet" else ["model.test_cfg.mode=whole"]
    command = [
        known.python,
        *("-c", THEIRS, str(frameworks.LAUNCHER)),
        f"--config={frameworks.protocol_file(framework, protocol)}",
        *(f"--weights={weights}", f"--work={folder}", "--iterations=12", "--resume", "--set", *settings),
    ]
    environment = {**known.environment, "CGH_DATA": str(data), "OMP_NUM_THREADS": "1"}
    log = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def assert_same(folder: Path, whole: Path) -> None:
    metrics, expected = (json.loads((run / "metrics.json").read_text()) for run in (folder, whole))
    assert metrics == expected
    trained, wanted = (torch.load(run / "model.pth", weights_only=True)["state_dict"] for run in (folder, whole))
    assert all(torch.equal(tensor, trained[name]) for name, tensor in wanted.items())


def wait_until(happens, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def frameworks_in(folder: Path) -> list[Path]:
    """The frameworks' processes that were started in the folder; processes come and go."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == folder and b"openmmlab.train" in (process / "cmdline").read_bytes():
                found.append(process)
    return found
