"""Evaluations by two processes that `torchrun` starts give what one process gives, to the bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def run(work: Path, data: Path, processes: int) -> dict[str, object]:
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [
        sys.executable,
        *(several if processes > 1 else []),
        "-m",
        "cgh_bench",
        "eval",
        "knn,knn_leave_one_out",
        "--ckpt",
        "random:resnet18",
    ]
    options = ["--data", str(data), "--set", "transform.resize=32", "--set", "transform.crop=32", "--work", str(work)]
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    lines = (work / "results.jsonl").read_text().splitlines()
    assert len(lines) == 2
    return {record["task"]: (record["protocol"], record["metrics"]) for record in map(json.loads, lines)}


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 3)):
        for name in ("cat", "dog"):
            for index in range(count):
                path = tmp_path / "zoo" / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    one, two = (run(tmp_path / f"work{n}", tmp_path / "zoo", n) for n in (1, 2))
    assert one == two
    banks = [sorted((tmp_path / f"work{n}/cache/features").glob("*/features.npy")) for n in (1, 2)]
    assert [path.parent.name for path in banks[0]] == [path.parent.name for path in banks[1]]
    for first, second in zip(*banks, strict=True):
        np.testing.assert_allclose(np.load(first), np.load(second), rtol=1e-5, atol=1e-6)
