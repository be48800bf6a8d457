"""Two processes compute what one does, by every method; BatchNorm, which sees a process's images, is held still."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rivals_process import RECIPES
from test_pretrain import leaves, lines, one_thread

SCRIPT = Path(__file__).with_name("rivals_process.py")


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of all runs of one process, and of two."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    subprocess.run([sys.executable, SCRIPT, one], check=True, env=one_thread())
    subprocess.run([*TORCHRUN, SCRIPT, two], check=True, env=one_thread())
    return one, two


@pytest.mark.slow
def test_the_first_of_several_processes_says_where_the_weights_are(tmp_path):
    command = [*TORCHRUN, "-m", "cgh_bench", "pretrain", "random_r18_animals", "-o", tmp_path / "run"]
    done = subprocess.run(command, check=True, env=one_thread(), capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(tmp_path / "run/backbone.safetensors")]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_equal_one(runs, name):
    one, two = (folder / name for folder in runs)
    for a, b in zip(lines(one), lines(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4), a["step"]
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (one, two)]
    # Networks, teachers, queues and centres; and the sums of all gradients.
    for part in ("method", "optimizer"):
        mine, its = (leaves(state[part]) for state in states)
        assert mine.keys() == its.keys()
        for key, value in mine.items():
            if isinstance(value, torch.Tensor):
                # Mostly 1e-6; more where rounding turns a ReLU on or off.
                assert (value - its[key]).float().norm() <= 0.01 * value.float().norm(), key
            else:
                assert value == its[key], key
