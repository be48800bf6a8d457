"""What is built and installed is whole: it evaluates without a checkout beside it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import faulty
import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta as backend; print(getattr(backend, sys.argv[1])(sys.argv[2]))"


def built(kind: str, source: Path, out: Path) -> Path:
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_wheel_of_the_sdist_evaluates(tmp_path: Path) -> None:
    """In an empty environment that sees the packages of this one, but not this checkout."""
    pytest.importorskip("setuptools", minversion="77")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.rstrip("\0").split("\0"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name, follow_symlinks=False)
    with tarfile.open(built("sdist", tmp_path / "source", tmp_path)) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel = built("wheel", unpacked, tmp_path)

    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    (packages,) = environment.glob("lib/*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    faulty.images(tmp_path, each=2)
    settings = [word for setting in faulty.EVALUATION for word in ("--set", setting)]
    words = ["eval", "knn", "--ckpt", "random:resnet18", "--data", "images", *settings]
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [environment / "bin/cgh-bench", *words]
    done = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "work/results.jsonl").read_text().splitlines()
    assert json.loads(line)["metrics"]["top1"] >= 0
    where = [python, "-c", "import cgh_bench.pretrain; print(cgh_bench.pretrain.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=outside, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(packages)
