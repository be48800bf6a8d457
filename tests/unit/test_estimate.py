"""What is said about time and disk before a run."""

from types import SimpleNamespace

import pytest

from cgh_bench.foreign import frameworks
from cgh_bench.tasks import estimate
from cgh_bench.tasks.base import Folders


@pytest.fixture
def said(tmp_path, monkeypatch):
    """The lines about a protocol on so many GPUs, after runs (protocol id, seconds)."""

    def plan(protocol, gpus=1, runs=(), iterations=None) -> list[str]:
        records = [SimpleNamespace(protocol=known, seconds=seconds) for known, seconds in runs]
        monkeypatch.setattr(estimate.launch, "gpus", lambda: gpus)
        monkeypatch.setattr(estimate.results, "read", lambda store: (records, []))
        folders = Folders(tmp_path / "eval" / "trunk" / f"{protocol}@1" / "seed0", tmp_path / "cache")
        return estimate.plan(protocol, iterations, folders)

    return plan


def test_from_the_model_zoo(said):
    time, disk = said("voc_det", gpus=2)
    assert time.startswith("about 3.6 h on eight V100s")  # 24,000 times .537 s
    assert time.endswith("14.3 h on 2 like them")
    assert disk.endswith("GB free")
    assert said("voc_det", gpus=0)[0].endswith("weeks on CPUs")


def test_the_length_may_be_inherited_or_set(said):
    assert estimate.steps("coco_fpn_4conv1fc") == 90_000
    assert estimate.steps("coco_det_2x") == 180_000
    assert said("voc_det", iterations=2_400)[0].startswith("about 21 min")


def test_earlier_runs_know_better(said):
    time, _ = said("voc_det", runs=[("voc_det@1", 120.0), ("voc_det@2", 9e9)])
    assert time == "about 2 min, as before (runs: 1)"


def test_unknown_is_said(said):
    assert said("ade20k_seg")[0].startswith("time unknown")


def test_a_full_disk_is_said(said, monkeypatch):
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e8))
    assert said("voc_det")[1].endswith("0 GB free: NOT ENOUGH")


@pytest.mark.parametrize("protocol", estimate.SECONDS_PER_STEP)
def test_figures_are_of_protocols_that_are_there(protocol):
    assert frameworks.protocol_file("mmdet", protocol)
