"""Detection and segmentation tasks without a framework: registration, plans, refusals, launches, differences."""

import functools
import os
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from cgh_bench import published, tasks
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.cli import evaluating, listing
from cgh_bench.core import dist
from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.data import dense
from cgh_bench.evaluation import configured, protocol_id
from cgh_bench.foreign import frameworks
from cgh_bench.foreign.launch import Launch
from cgh_bench.tasks import transfer
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.detection import TASKS, Detection

random_checkpoint = functools.cache(random_checkpoint)  # nothing here changes one

# registration


@pytest.mark.parametrize("name", [name for name in TASKS if f"{name}_detectron2" in TASKS])
def test_each_framework_has_an_id_of_its_own(name):
    there = transfer.in_framework(name, "detectron2")
    assert there == f"{name}_detectron2"
    assert transfer.in_framework(there, "mmdet") == name
    assert (tasks.find(name).framework, tasks.find(there).framework) == ("mmdet", "detectron2")
    assert protocol_id(name, tasks.find(name)) != protocol_id(there, tasks.find(there))


def test_only_protocols_with_a_file_for_detectron2_have_a_task_there():
    there = {task.protocol for task in TASKS.values() if task.framework == "detectron2"}
    assert there == set(frameworks.find("detectron2").protocols)


def test_mmdets_ids_are_as_they_were():
    assert protocol_id("animals_det", tasks.find("animals_det")) == "animals_det@c34417e2"


def test_the_definition_is_recorded_with_the_configuration():
    from cgh_bench.core.config import plain

    recorded = plain(tasks.find("animals_det"))
    assert recorded["definition"] == frameworks.definition("mmdet", "animals_det")


@pytest.fixture
def broken(monkeypatch):
    """A registered task whose protocol has no file."""
    task = Detection(data="animal_scenes", protocol="animals_det_new", arch="resnet18")
    monkeypatch.setitem(registered("cgh_bench.tasks", "TASKS"), "animals_det_new", task)


@pytest.mark.usefixtures("broken")
def test_a_broken_protocol_is_named_when_it_is_asked_for_and_breaks_nothing_else():
    lines = CliRunner().invoke(listing.list_, ["tasks"]).stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("animals_det_new "))
    assert "unusable" in line and "unknown mmdet protocol 'animals_det_new'" in line
    assert any(line.startswith("animals_det ") and "@c34417e2" in line for line in lines)
    with pytest.raises(UserError, match="unknown mmdet protocol 'animals_det_new'"):
        protocol_id("animals_det_new", tasks.find("animals_det_new"))
    assert protocol_id("knn", tasks.find("knn"))
    assert transfer.in_framework("animals_det", "detectron2")


def test_a_framework_that_cannot_be_chosen():
    with pytest.raises(UserError, match="did you mean detectron2"):
        transfer.in_framework("coco_det", "detectron")
    with pytest.raises(UserError, match="unknown framework for voc_seg 'detectron2'; known: mmseg"):
        transfer.in_framework("voc_seg", "detectron2")
    with pytest.raises(UserError, match="--framework .* animals_knn"):
        transfer.in_framework("animals_knn", "mmdet")


def test_published_detection_results_are_detectron2s():
    for protocol in ("voc_det", "coco_c4_1x", "coco_c4_2x", "coco_fpn_1x_moco", "coco_fpn_1x_infomin"):
        (follower,) = published.protocols()[protocol].tasks
        assert tasks.find(follower).framework == "detectron2"


# refusals


@pytest.mark.parametrize("task", ["animals_seg", "coco_det_detectron2"])
@pytest.mark.parametrize("setting", ["iterations=0", "iterations=-3", "settings=lr", "settings=a=1,=2"])
def test_a_training_that_cannot_be_is_refused_before_it_starts(task, setting):
    with pytest.raises(UserError, match="must be"):
        configured(task, [setting])


@pytest.mark.parametrize("arch", ["resnet34", "vit_tiny_patch16_224"])
def test_another_architecture_is_refused_by_name(arch):
    with pytest.raises(UserError, match=arch):
        tasks.find("animals_det").check_backbone(random_checkpoint(arch))


@pytest.fixture
def dry_run(tmp_path):
    """`eval` with --dry-run, of which nothing may be left."""

    def invoke(task: str, ckpt: str):
        work = tmp_path / "work"
        result = CliRunner().invoke(evaluating.eval_, [task, f"--ckpt={ckpt}", f"--work={work}", "--dry-run"])
        assert not work.exists()
        return result

    return invoke


@pytest.mark.parametrize("task", ["animals_det", "coco_det"])
def test_the_architecture_is_refused_before_any_data_are_looked_for_or_written(dry_run, task, monkeypatch):
    monkeypatch.setenv("CGH_DATA", "/nowhere")
    refused = dry_run(task, "random:vit_tiny_patch16_224").exception
    assert isinstance(refused, UserError)
    assert "vit_tiny_patch16_224" in str(refused) and "/nowhere" not in str(refused)


@pytest.mark.skipif(find_spec("mmdet") is None, reason="needs mmdetection")
def test_a_dry_run_writes_no_scenes(dry_run):
    done = dry_run("animals_det", "random:resnet18")
    assert "animals_det@c34417e2 seed 0: would run" in done.stdout


@pytest.mark.usefixtures("broken")
def test_a_broken_protocol_stops_no_other_task(dry_run):
    assert dry_run("animals_knn", "random:resnet18").exit_code == 0


def test_generated_scenes_are_written_when_they_are_used(tmp_path):
    located = dense.locate("animal_scenes", tmp_path)
    assert not list(tmp_path.iterdir())
    assert located == dense.locate("animal_scenes", tmp_path)


# processes


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many GPUs, and no choice in its environment."""
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("CGH_")})
    return lambda gpus: monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


@pytest.mark.parametrize(
    ("present", "launch", "expected"),
    [
        (0, Launch(), ["--gpus=0"]),
        (4, Launch(), ["--gpus=4"]),
        (4, Launch(gpus=0), ["--gpus=0"]),
        (4, Launch(2, 1), ["--gpus=2", "--images-at-a-time=1"]),
    ],
)
def test_what_the_process_is_told_of_gpus_and_images(machine, present, launch, expected):
    machine(present)
    assert launch.arguments() == expected


def test_the_environment_chooses_where_nothing_else_does(machine):
    machine(4)
    os.environ |= {"CGH_GPUS": "3", "CGH_IMAGES_AT_A_TIME": "2"}
    assert Launch().arguments() == ["--gpus=3", "--images-at-a-time=2"]
    assert Launch(2, 1).arguments() == ["--gpus=2", "--images-at-a-time=1"]
    os.environ["CGH_GPUS"] = "all"
    with pytest.raises(UserError, match="CGH_GPUS='all'"):
        Launch().processes()


@pytest.mark.parametrize(("present", "said"), [(1, "only 1 visible"), (0, "none is visible; use --gpus 0")])
def test_more_gpus_than_there_are(machine, present, said, tmp_path):
    machine(present)
    with pytest.raises(UserError, match=f"--gpus 2 requested, but {said}"):
        Launch(gpus=2).processes()
    folders = Folders(tmp_path, tmp_path, Launch(gpus=2))
    with pytest.raises(UserError, match="--gpus 2 requested"):  # so that --dry-run refuses it too
        tasks.find("coco_fpn").plan(random_checkpoint("resnet50"), None, folders)


def test_under_torchrun_there_are_as_many_processes_as_it_started(machine, monkeypatch):
    machine(0)
    monkeypatch.setattr(dist, "world_size", lambda: 16)
    os.environ["LOCAL_WORLD_SIZE"] = "8"
    assert [Launch(gpus).processes() for gpus in (None, 8, 16)] == [16, 16, 16]
    with pytest.raises(UserError, match="--gpus 4 requested, but torchrun started 16"):
        Launch(4).processes()


@pytest.mark.skipif(find_spec("mmdet") is None, reason="needs mmdetection")
def test_a_job_is_planned_for_the_gpus_of_its_nodes(machine, tmp_path):
    """Not for those of this machine, which has none; it is refused before it is queued."""
    machine(0)
    pytest.importorskip("submitit")
    given = ["animals_det", "--ckpt=random:resnet18", f"--work={tmp_path}", "--gpus=3", "--slurm=nodes=5,timeout_min=5"]
    refused = CliRunner().invoke(evaluating.eval_, given).exception
    assert isinstance(refused, UserError)
    assert "a batch of 8 images cannot be divided among 15 GPUs" in str(refused)


# plans


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """The lines about a task on so many GPUs, after runs (protocol id, seconds), whose settings a framework accepts."""
    monkeypatch.setattr(transfer, "described", lambda task: {})

    def lines(name, gpus=1, runs=(), **settings) -> list[str]:
        records = [SimpleNamespace(protocol=known, seconds=seconds) for known, seconds in runs]
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(transfer.results, "read", lambda store: (records, []))
        task, _ = configured(name, [f"{field}={value}" for field, value in settings.items()])
        folders = Folders(tmp_path / "eval" / "backbone" / f"{name}@1" / "seed0", tmp_path / "cache", Launch(gpus))
        return task.plan(random_checkpoint(task.arch), dense.Located(tmp_path, "", ""), folders)

    return lines


def test_from_the_model_zoo(plan):
    time, disk = plan("voc_det", gpus=2)
    assert "about 3 h 35 min on eight V100s" in time  # 24,000 times .537 s
    assert time.endswith("14 h 19 min on 2 of them")
    assert disk.endswith("GB free")
    assert plan("voc_det", gpus=0)[0].endswith("weeks on CPUs")
    assert "about 21 min" in plan("voc_det", iterations=2_400)[0]


def test_the_length_may_be_inherited():
    assert transfer.stated("mmdet", "coco_fpn_4conv1fc", "iterations") == 90_000
    assert transfer.stated("detectron2", "coco_det_2x", "iterations") == 180_000


def test_every_protocol_states_its_steps_and_its_batch():
    for task in registered("cgh_bench.tasks", "TASKS").values():
        if isinstance(task, transfer.Transfer):
            assert transfer.stated(task.framework, task.protocol, "iterations") >= 125 and task.batch in (8, 16, 64)


def test_the_plan_holds_the_batch_against_the_gpus(plan):
    assert plan("coco_fpn", gpus=8)
    with pytest.raises(UserError, match="a batch of 16 images cannot be divided among 3 GPUs"):
        plan("coco_fpn", gpus=3)
    assert plan("coco_fpn", gpus=3, settings="batch_size=12")
    with pytest.raises(UserError, match="a batch of 10 images cannot be divided among 3 GPUs"):
        plan("coco_fpn_detectron2", gpus=3, settings="SOLVER.IMS_PER_BATCH=10")


def test_earlier_runs_know_better(plan):
    time, _ = plan("voc_det", runs=[("voc_det@1", 120.0), ("voc_det@2", 9e9)])
    assert "about 2 min" in time and "1 earlier run" in time


def test_unknown_is_said(plan):
    assert "unknown" in plan("ade20k_seg")[0]


def test_a_full_disk_is_said(plan, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e8))
    assert plan("voc_det")[1].endswith("0 GB free: NOT ENOUGH")


@pytest.mark.parametrize("protocol", transfer.SECONDS_PER_STEP)
def test_known_speeds_are_of_protocols_that_are_there(protocol):
    assert frameworks.protocol_file("detectron2", protocol)


def test_a_plan_asks_a_process_of_the_framework_whether_it_accepts_the_settings(monkeypatch, tmp_path):
    """A stand-in for its Python, which knows where the modules are and answers as it is told."""
    python = tmp_path / "python"

    def answers(command: str) -> None:
        python.write_text(f'#!/bin/sh\ncase "$*" in *find_spec*) echo "[]";; *) {command};; esac\n')
        python.chmod(0o755)

    monkeypatch.setenv("CGH_MM_PYTHON", str(python))
    task, _ = configured("animals_det", ["settings=batch_size=4,model.nekc=3"])
    given = random_checkpoint("resnet18"), dense.Located(tmp_path, "", ""), Folders(tmp_path / "run", tmp_path)
    answers('echo a warning; echo "{\\"model\\": {\\"size\\": \\"$*\\"}}"')
    (asked,) = transfer.facts("animals_det").values()
    assert asked.endswith(f"openmmlab.describe --config={frameworks.protocol_file('mmdet', 'animals_det')}")
    assert transfer.described(task)["model"]["size"].endswith(" --set batch_size=4 model.nekc=3")
    assert task.plan(*given)
    answers("echo no nekc in the protocol >&2; exit 1")
    with pytest.raises(UserError, match="mmdet cannot describe animals_det: no nekc in the protocol"):
        task.plan(*given)


# differences


def test_only_what_differs_is_a_difference():
    one = transfer.flat({"model": {"size": 3, "norms": {"BN": 2}}, "steps": 5})
    other = transfer.flat({"model": {"size": 3, "norms": {"GN": 2}}, "steps": 6})
    assert transfer.differences([one, other]) == {
        "model / norms / BN": (2, None),
        "steps": (5, 6),
        "model / norms / GN": (None, 2),
    }
    assert transfer.differences([one, dict(one)]) == {}


def test_the_command_prints_each_difference_and_counts_the_rest(monkeypatch):
    described = {
        "detectron2": {"steps": 5, "norm": "BN", "rate": 0.1},
        "mmdet": {"steps": 6, "norm": "BN", "rate": 0.1},
    }
    monkeypatch.setattr(transfer, "facts", lambda name, framework="": described[framework])
    done = CliRunner().invoke(listing.protocol, ["diff", "coco_det"])
    assert done.stdout.splitlines() == [
        "steps",
        "    detectron2   5",
        "    mmdet        6",
        "coco_det: 1 differences; 2 settings are equal",
    ]
    shown = CliRunner().invoke(listing.protocol, ["show", "coco_det", "--framework", "mmdet"])
    assert shown.stdout.splitlines() == ["steps: 6", "norm: BN", "rate: 0.1"]
    alone = CliRunner().invoke(listing.protocol, ["diff", "coco_det", "--frameworks", "mmdet"])
    assert isinstance(alone.exception, UserError)
