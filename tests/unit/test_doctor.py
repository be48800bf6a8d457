"""Each fault is made, found, and answered with a command; and none is found where there is none."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cgh_bench import doctor
from cgh_bench.cli.doctor import doctor as verb
from cgh_bench.doctor import needs, system
from cgh_bench.doctor.finding import EVERYTHING, Finding, Work, judge, sentences
from cgh_bench.foreign import frameworks
from cgh_bench.foreign.frameworks import Framework

Usage = namedtuple("Usage", "total used free")
GB = system.GIGABYTE
CORES = 2
"""Interpreters are asked at once."""


def broken(subject="torch", state="broken"):
    return Finding(subject, state, "found", "so", "do")


# machine


@pytest.mark.parametrize("free, state", [(20 * GB, "ok"), (1 * GB, "note")])
def test_a_full_disk(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * GB, 100 * GB - free, free))
    finding = system.disk(tmp_path / "not" / "yet")
    assert finding.state == state and ("CGH_WORK" in finding.remedy) == (state != "ok")
    assert not (tmp_path / "not").exists(), "a check makes no folders"


@pytest.mark.parametrize("free, state", [(8 * GB, "ok"), (64 * 1024**2, "note")])
def test_little_shared_memory(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
    finding = system.shared_memory(tmp_path)
    assert finding.state == state and ("--shm-size" in finding.remedy) == (state == "note")
    assert system.shared_memory(tmp_path / "absent").state == "note"


@pytest.mark.parametrize("soft, hard, remedy", [(1024, 1 << 20, "ulimit -n 4096"), (256, 512, "ulimit -n 512")])
def test_few_open_files(monkeypatch, soft, hard, remedy):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    assert system.open_files().remedy == remedy
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert system.open_files().state == "ok"


def test_a_folder_that_cannot_be_written(tmp_path):
    assert system.writable(tmp_path / "new").state == "ok"
    assert list(tmp_path.iterdir()) == []
    finding = system.writable(Path("/proc/self"))
    assert finding.state == "broken" and "CGH_WORK" in finding.remedy
    assert judge([Work("frozen", "knn")], [finding])[0].because == (f"writing: {finding.found}",)


@pytest.mark.parametrize("seconds, state", [(0, "ok"), (-3600, "note"), (-4e8, "note")])
def test_a_clock_that_is_wrong(monkeypatch, tmp_path, seconds, state):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds)
    assert system.clock(tmp_path).state == state


# packages


def test_nothing_is_wrong_with_the_packages_here(tmp_path):
    assert [finding for finding in system.all_checks(tmp_path) if finding.state == "broken"] == []


@pytest.mark.parametrize("version, state", [((3, 10, 1), "broken"), ((3, 11, 0), "ok"), ((3, 14, 0), "broken")])
def test_other_pythons(monkeypatch, version, state):
    monkeypatch.setattr(sys, "version_info", version)
    assert system.python().state == state


def test_a_required_package_that_is_absent_or_too_old(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["numpy>=99", "no-such-package>=1", 'ruff>=99; extra == "dev"'])
    finding = system.requirements()
    assert finding.state == "broken" and "no-such-package is not installed" in finding.found
    assert finding.remedy.endswith("-m pip install 'numpy>=99' 'no-such-package>=1'")


def test_a_checkout_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(system, "OURS", "no-such-package")
    finding = system.requirements()
    assert finding.state == "note" and "pip install -e ." in finding.remedy


@pytest.mark.parametrize(
    "cuda, driver, state, words",
    [
        ("13.0", None, "ok", "no NVIDIA driver"),
        (None, 580, "note", "a torch for CUDA 13"),
        ("13.0", 535, "note", "a torch for CUDA 12"),
        ("12.6", 535, "note", "CUDA_VISIBLE_DEVICES"),
        ("12.6", 390, "note", "install NVIDIA's driver 580"),
    ],
)
def test_torch_and_the_driver(monkeypatch, tmp_path, cuda, driver, state, words):
    text = (
        f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {driver}.65.06  Release Build\nGCC version: 12.3.0"
    )
    (tmp_path / "version").write_text(text if driver else "")
    monkeypatch.setattr(system, "DRIVER_FILE", tmp_path / ("version" if driver else "absent"))
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    finding = system.torch()
    assert finding.state == state and words in finding.found + finding.remedy


def test_torchvision_of_another_torch(monkeypatch):
    real = metadata.version
    assert system.torchvision().state == "ok"
    monkeypatch.setattr(metadata, "version", lambda name: "2.6.0+cpu" if name == "torch" else real(name))
    finding = system.torchvision()
    assert finding.state == "note" and "'torch==2.6.0' 'torchvision==0.21.*'" in finding.remedy
    monkeypatch.setattr(system, "_has_nms", lambda folders: False)
    assert system.torchvision().state == "broken"


@pytest.mark.parametrize(
    "check, state", [("torch", "broken"), ("torchvision", "broken"), ("numpy", "broken"), ("faiss", "note")]
)
def test_packages_that_cannot_be_imported(monkeypatch, check, state):
    monkeypatch.setitem(sys.modules, check, None)
    finding = getattr(system, check)()
    assert finding.state == state and "ModuleNotFoundError" in finding.found and "pip install" in finding.remedy


def test_without_torch_the_doctor_still_speaks(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    findings, verdicts = doctor.examine(tmp_path)
    assert {f.subject for f in findings if f.state == "broken"} >= {"torch"}
    assert [v.can_run for v in verdicts] == [False] and "torch: cannot be imported" in verdicts[0].because[0]


# frameworks


def question(monkeypatch, modules, source="", python=sys.executable, tmp_path=None):
    """Ask for `modules` of a package path that holds what `source` says of each."""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name, text in (source or {}).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return needs.ask(python, modules, environment)


def test_an_interpreter_is_asked_for_what_it_has(tmp_path, monkeypatch):
    sources = {
        "fine/__init__.py": "__version__ = '1.2'",
        "worse/__init__.py": "raise OSError('libcudart.so.11: no\\nfile')",
    }
    got = needs.answer(question(monkeypatch, ["fine", "worse", "absent", "fine._ext"], sources, tmp_path=tmp_path))
    assert got["fine"] == {"version": "1.2", "package": "", "error": ""}
    assert got["worse"]["error"] == "OSError: libcudart.so.11: no file"
    assert "No module named 'absent'" in got["absent"]["error"] and "fine._ext" in got["fine._ext"]["error"]


def test_an_interpreter_that_dies_or_is_none(tmp_path, monkeypatch):
    dies = {"dies/__init__.py": "import os, sys; print('Illegal instruction', file=sys.stderr); os._exit(132)"}
    with pytest.raises(ValueError, match="exit code 132: Illegal instruction"):
        needs.answer(question(monkeypatch, ["dies"], dies, tmp_path=tmp_path))
    with pytest.raises(ValueError, match="No such file"):
        needs.answer(needs.ask("/no/such/python", ["x"], {}))
    monkeypatch.setattr(needs, "SECONDS_ALLOWED", 0.5)
    with pytest.raises(ValueError, match="no answer in"):
        hangs = {"hangs/__init__.py": "import time; time.sleep(60)"}
        needs.answer(question(monkeypatch, ["hangs"], hangs, tmp_path=tmp_path))


FINE = {"version": "1", "package": "p", "error": ""}
ABSENT = {"version": "", "package": "", "error": "ModuleNotFoundError: No module named 'mmcv'"}
ABI = {"version": "", "package": "p", "error": "ImportError: _ext.so: undefined symbol: _ZN2at4"}
REFUSED = {"version": "", "package": "p", "error": "AssertionError: MMCV==2.2.0 is used but incompatible"}
NO_EXT = {"version": "", "package": "p", "error": "ModuleNotFoundError: No module named 'mmcv._ext'"}


@pytest.mark.parametrize(
    "mmcv, mmdet, ext, states, words",
    [
        (FINE, FINE, FINE, ["ok", "ok"], "compiled"),
        (FINE, FINE, NO_EXT, ["ok", "ok"], "torchvision's nms"),
        (FINE, FINE, ABI, ["ok", "broken"], "undefined symbol"),
        (FINE, REFUSED, NO_EXT, ["broken", "ok"], "incompatible"),
        (ABSENT, ABSENT, ABSENT, ["absent"], "not installed"),
    ],
)
def test_faults_of_frameworks(monkeypatch, mmcv, mmdet, ext, states, words):
    answers = {"mmengine": FINE, "mmcv": mmcv, "mmdet": mmdet, "mmcv._ext": ext}
    monkeypatch.setattr(needs, "answer", lambda _: answers)
    asked = needs.Question({"mmdet": frameworks.FRAMEWORKS["mmdet"]}, needs.Asked("python", None, ""))
    found = needs.check_frameworks(asked)
    assert [finding.state for finding in found] == states
    assert any(words in finding.found for finding in found)


def test_the_interpreter_that_the_variable_names_is_asked(monkeypatch):
    monkeypatch.setenv("CGH_MM_PYTHON", "/no/such/python")
    monkeypatch.setattr(needs, "FRAMEWORKS", {name: frameworks.FRAMEWORKS[name] for name in ("mmdet", "mmseg")})
    (asked,) = needs.ask_all()
    found = needs.check_frameworks(asked)
    assert [(f.subject, f.state) for f in found] == [("mmdet", "broken"), ("mmseg", "broken")]
    assert all("unset CGH_MM_PYTHON" in f.remedy and "/no/such/python" in f.found for f in found)


def test_every_framework_is_asked_for():
    assert {m for f in frameworks.FRAMEWORKS.values() for m in f.modules} >= set(needs.COMPILED)
    assert all(isinstance(f, Framework) for f in frameworks.FRAMEWORKS.values())


# data


def folder_of_images(root):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(root / split / name / "1.png")


def test_data_sets(monkeypatch, tmp_path):
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    assert needs.present("animals").state == "ok"
    with monkeypatch.context() as patched:
        patched.setattr(needs, "BUNDLED_NEED", ("no_such_package",))
        assert "[demo]" in needs.present("animals").remedy
    absent = needs.present("my_pets")
    assert absent.state == "absent" and "train/<class>/*" in absent.remedy
    assert needs.whole("my_pets", tmp_path) == absent
    coco = needs.whole("coco", tmp_path)
    assert coco.state == "absent" and "images.cocodataset.org" in coco.remedy
    named = [needs.present(name).remedy for name in ("coco", "cifar10", "imagenet100", "voc0712")]
    assert all("$CGH_DATA" not in remedy and str(tmp_path) in remedy for remedy in named), "as they can be typed"
    (tmp_path / "coco").mkdir()
    assert needs.present("coco").state == "ok"
    half = needs.whole("coco", tmp_path)
    assert half.state == "broken" and "not complete" in half.found and half.remedy
    folder_of_images(tmp_path / "my_pets")
    assert needs.whole("my_pets", tmp_path).found.startswith("2 train images of 2 classes, 2 val images")
    (tmp_path / "my_pets/val/dog/1.png").write_bytes(b"not an image")
    damaged = needs.whole("my_pets", tmp_path)
    assert damaged.state == "broken" and "1.png" in damaged.found and "remove" in damaged.remedy


# verdicts and the verb


def test_verdicts_name_what_is_missing():
    works = [Work("pretrain", "r"), Work("mmdet", "d", ("mmdet", "data coco")), Work("mmdet", "e", ("mmdet",))]
    verdicts = judge(works, [broken("data coco", "absent"), broken("disk", "note")])
    assert [v.can_run for v in verdicts] == [True, False, True]
    assert verdicts[1].because == ("data coco: found",)
    assert sentences(verdicts)[0].split() == ["pretrain", "can", "run", "r"]
    for subject in EVERYTHING:
        assert not any(v.can_run for v in judge(works, [broken(subject)]))


def test_what_only_lacks_data_is_counted_in_brief():
    works = [Work("mmdet", "a"), Work("mmdet", "b", ("data pets",)), Work("mmdet", "c", ("data pets", "mmdet"))]
    verdicts = judge(works, [broken("data pets", "absent"), broken("mmdet")])
    text = "\n".join(sentences(verdicts, brief=True))
    assert "cannot run 1 more\n" in text and "because of missing datasets" in text
    assert "cannot run c\n" in text and "because of data pets: found; mmdet: found" in text
    assert "1 more" not in "\n".join(sentences(verdicts))


def test_every_recipe_and_task_gets_a_verdict():
    works, names = doctor.everything()
    assert {"cgh_r18_animals", "knn", "animals_det", "animals_seg"} <= {work.name for work in works}
    needs = {work.name: work.needs for work in works}
    assert needs["animals_det"] == ("mmdet", "mmdet operators", "data animal_scenes")
    assert {"animals", "coco"} <= set(names) and needs["knn"] == ()


@pytest.mark.parametrize("state, code", [("ok", 0), ("note", 0), ("absent", 0), ("broken", 1)])
def test_the_verb(monkeypatch, tmp_path, state, code):
    finding = broken("mmdet", state)
    monkeypatch.setattr(doctor, "examine", lambda *_: ([finding], judge([Work("mmdet", "d", ("mmdet",))], [finding])))
    shown = CliRunner().invoke(verb, ["--work", str(tmp_path)])
    assert (shown.exit_code != 0) == bool(code) and ("fix: do" in shown.output) == (state != "ok")
    told = json.loads(CliRunner().invoke(verb, ["--json", "--work", str(tmp_path)]).output)
    assert told["findings"][0]["state"] == state and told["verdicts"][0]["can_run"] == (state in ("ok", "note"))


@pytest.mark.slow
def test_a_whole_examination_takes_less_than_ten_seconds_of_two_cores(tmp_path):
    """Seconds of processor time: the clock on the wall depends on what else runs."""
    command = [sys.executable, "-m", "cgh_bench", "doctor", "--json", "--work", str(tmp_path)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(done.stdout)
    assert {f["subject"] for f in told["findings"]} >= {"torch", "mmdet", "mmseg", "detectron2", "disk", "clock"}
    assert any(verdict["can_run"] for verdict in told["verdicts"]), told
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10 * CORES
