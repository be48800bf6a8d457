"""The check of a GPU, rehearsed at tiny size on whatever there is."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


def check(folder: Path, *parts: str, **environment: str) -> tuple[int, Any]:
    command = [sys.executable, SCRIPT, "--tiny", "--out", folder, *parts]
    done = subprocess.run(command, env=os.environ | environment, check=False, capture_output=True)
    assert (folder / "gpu_check.md").read_text().count("\n## ") == len(parts) or not parts
    return done.returncode, json.loads((folder / "gpu_check.json").read_text())


def test_parts_measure_and_the_page_says_what_is_wanted() -> None:
    script = runpy.run_path(str(SCRIPT))
    found = script["relation"](True)
    assert found["fp32, times the plain"] > 0 and found["fp32, difference"] < 1e-4
    parts = {"relation": found, "knn": {"error": "first line\nsecond | line"}}
    shown = script["page"]({"tiny": True, "device": script["device"](), "wanted": script["WANTED"], "parts": parts})
    assert "a rehearsal" in shown and "| error | first line second / line |  |" in shown
    assert f"| fp32, times the plain | {found['fp32, times the plain']} | ≤ 1 |" in shown


@pytest.mark.slow
def test_a_part_that_fails_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "faiss.py").write_text("raise OSError('libcudart.so.12: no such file')")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    code, found = check(tmp_path, "knn", "relation", PYTHONPATH=path)
    assert code == 1 and found["tiny"]
    assert "libcudart.so.12" in found["parts"]["knn"]["error"]
    assert found["parts"]["relation"]["fp32, difference"] < 1e-4


@pytest.mark.slow
def test_every_part_can_be_rehearsed(tmp_path: Path) -> None:
    code, found = check(tmp_path)
    assert code == 0, [numbers for numbers in found["parts"].values() if "error" in numbers]
    assert all(value <= 1e-5 for name, value in found["parts"]["same"].items() if name.startswith("features"))
    assert found["parts"]["same"]["kNN, rows and bits equal"] and found["parts"]["knn"]["times the bare"] > 0
