"""Processes and parts: what a framework's script is told."""

import os

import pytest

from cgh_bench.core.errors import UserError
from cgh_bench.evaluate import configured
from cgh_bench.foreign import launch


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("CGH_")})


@pytest.mark.parametrize(("present", "expected"), [(0, "--gpus=0"), (4, "--gpus=4")])
def test_all_gpus_are_taken(present, expected, monkeypatch):
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: present)
    assert launch.arguments() == [expected]


def test_fewer_gpus_and_fewer_images(monkeypatch):
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 4)
    launch.choose(2, 1)
    launch.choose(None, None)
    assert launch.arguments() == ["--gpus=2", "--images-at-a-time=1"]


def test_processes_on_cpus(monkeypatch):
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 0)
    launch.choose(2, None)
    assert launch.gpus() == 2


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 1)
    launch.choose(2, None)
    with pytest.raises(UserError, match="2 GPUs are asked for .* 1 are there"):
        launch.gpus()


def test_no_number():
    os.environ[launch.GPUS] = "all"
    with pytest.raises(UserError, match="CGH_GPUS='all' is no number"):
        launch.gpus()


@pytest.mark.parametrize("task", ["animals_seg", "coco_det_detectron2"])
@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("iterations=0", "iterations=0: a number of 1 or more is accepted"),
        ("iterations=-3", "iterations=-3: a number of 1 or more is accepted"),
        ("settings=lr", "settings=lr: key=value,… is accepted"),
        ("settings=a=1,=2", "settings==2: key=value,… is accepted"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_it_starts(task, setting, complaint):
    with pytest.raises(UserError, match=complaint):
        configured(task, [setting])
