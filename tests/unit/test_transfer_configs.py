"""The code that runs in frameworks' processes, as a package: how it is started, and that all of it can be imported."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cgh_bench.foreign import frameworks
from cgh_bench.transfer_configs.contract import arrival

BARE = [sys.executable, "-S"]
"""A Python without any package: not even torch, nor cgh_bench."""
SHOWN = """
import runpy, sys
before = list(sys.path)
runpy.run_path(sys.argv[1])
import cgh_bench.transfer_configs
assert sys.path == before
print(cgh_bench.__file__)
"""


def start(command: list, **environment: str) -> subprocess.CompletedProcess:
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, env=outside | environment, capture_output=True, text=True, check=False, cwd="/")


def test_our_package_is_registered_without_a_place_on_the_path():
    done = start([*BARE, "-c", SHOWN, frameworks.LAUNCHER])
    assert Path(done.stdout.strip()) == frameworks.CODE.parent / "__init__.py", done.stderr


def test_another_version_on_the_path_does_not_win(tmp_path):
    (tmp_path / "cgh_bench").mkdir()
    (tmp_path / "cgh_bench/__init__.py").write_text("raise SystemExit('the wrong one')")
    done = start([*BARE, "-c", SHOWN, frameworks.LAUNCHER], PYTHONPATH=str(tmp_path))
    assert Path(done.stdout.strip()) == frameworks.CODE.parent / "__init__.py", done.stderr


def test_our_folders_do_not_hide_the_frameworks():
    done = start([*BARE, frameworks.LAUNCHER, "detectron2.train", "--help"])
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'detectron2'"


def test_without_a_module_it_says_what_is_expected():
    done = start([*BARE, frameworks.LAUNCHER])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "openmmlab.train" in done.stderr


@pytest.mark.parametrize("folder", ["contract", "openmmlab"])
def test_every_module_can_be_imported(folder):
    if folder == "openmmlab":
        pytest.importorskip("mmdet")
        pytest.importorskip("mmseg")
    names = [path.stem for path in (frameworks.CODE / folder).glob("*.py")]
    assert len(names) > 4
    for name in names:
        importlib.import_module(f"cgh_bench.transfer_configs.{folder}.{name}")


@pytest.mark.slow
def test_it_can_be_run_as_a_module_too():
    pytest.importorskip("mmdet")
    command = [sys.executable, "-m", "cgh_bench.transfer_configs.openmmlab.train", "--help"]
    done = start(command, PYTHONPATH=str(frameworks.CODE.parents[1]))
    assert done.returncode == 0 and "--images-at-a-time" in done.stdout, done.stderr


def test_tensors_without_a_place_of_another_shape_or_changed_afterwards_have_not_arrived():
    weights = {"conv.weight": torch.ones(2), "wide.weight": torch.ones(3), "layer5.weight": torch.ones(1)}
    model = {f"backbone.{name}.weight": torch.zeros(2) for name in ("conv", "wide", "empty")}
    model["head.weight"] = torch.zeros(2)
    arrival.put(weights, model, ("backbone",))
    found = arrival.account(weights, model, ("backbone",), (), {})
    assert (found["given"], found["arrived"]) == (3, 1)
    assert found["missing"] == ["wide.weight", "layer5.weight"] and found["unfilled"] == ["backbone.empty.weight"]
    model["backbone.conv.weight"].add_(1e-4)
    assert arrival.account(weights, model, ("backbone",), (), {})["arrived"] == 0
