"""Cells of a table side by side, as processes of the real command."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TABLE = """
title = "Two rows"
description = "Both are pretrained."

[[rows]]
label = "CGH"
recipe = "cgh_r18_animals"

[[rows]]
label = "MoCo v2"
recipe = "moco_v2_r18_animals"

[[columns]]
header = "kNN top-1"
task = "animals_knn"
metric = "top1"
"""


@pytest.mark.slow
def test_ctrl_c_lets_every_cell_save_and_leaves_none_running(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(TABLE)
    command = [sys.executable, "-m", "cgh_bench", "table", "two.toml", "--run", "--jobs", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("work/pretrain/*/seed0/log.jsonl"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.2)
    cells = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 130
    assert said.count("saved; rerun the same command to resume") == 2 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("interrupted: ")
    assert len(list(tmp_path.glob("work/pretrain/*/seed0/checkpoint.pt"))) == 2
    assert len(cells) == 2 and not any(Path(f"/proc/{cell}").exists() for cell in cells)
