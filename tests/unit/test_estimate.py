"""The line about time and disk before a run."""

import dataclasses
from types import SimpleNamespace

import pytest

from cgh_bench import estimate, frameworks
from cgh_bench.tasks import find


def described(name, tmp_path, gpus=0, records=(), monkeypatch=None):
    monkeypatch.setattr(estimate.launch, "gpus", lambda: gpus)
    return estimate.describe(find(name), f"{name}@1", records, tmp_path / "not" / "yet")


def test_from_the_model_zoo(tmp_path, monkeypatch):
    line = described("voc_det", tmp_path, 2, monkeypatch=monkeypatch)
    assert line.startswith("about 3.6 h on eight V100s")  # 24,000 times .537 s
    assert "14.3 h on 2 like them" in line
    assert "GB free" in line
    assert "weeks on CPUs" in described("voc_det", tmp_path, monkeypatch=monkeypatch)


def test_the_length_may_be_inherited_or_set(tmp_path, monkeypatch):
    assert estimate._iterations("coco_fpn_4conv1fc") == 90_000
    assert estimate._iterations("coco_det_2x") == 180_000
    monkeypatch.setattr(estimate.launch, "gpus", lambda: 8)
    short = dataclasses.replace(find("voc_det"), iterations=2_400)
    assert estimate.describe(short, "voc_det@1", (), tmp_path).startswith("about 21 min")


def test_earlier_runs_know_better(tmp_path, monkeypatch):
    runs = [SimpleNamespace(protocol=p, seconds=s) for p, s in (("voc_det@1", 120.0), ("voc_det@2", 9e9))]
    assert "about 2 min, as before (1 runs)" in described("voc_det", tmp_path, 1, runs, monkeypatch)


def test_unknown_is_said(tmp_path, monkeypatch):
    assert "time unknown" in described("ade20k_seg", tmp_path, 1, monkeypatch=monkeypatch)


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e8))
    assert described("voc_det", tmp_path, 1, monkeypatch=monkeypatch).endswith("0 GB free; NOT ENOUGH")


@pytest.mark.parametrize("protocol", estimate.SECONDS_PER_STEP)
def test_figures_are_of_protocols_that_are_there(protocol):
    assert frameworks.protocol_file("mmdet", protocol)
