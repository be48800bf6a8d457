"""`cgh-bench watch` beside a run that is going on, both as processes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


@pytest.mark.slow
def test_each_epochs_backbone_is_evaluated_until_the_run_is_done(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(32):
            path = tmp_path / "zoo" / split / "animal" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(path)
    settings = (f"data={tmp_path / 'zoo'}", "epochs=2", "batch_size=16", "method.queue_length=32")
    verb = [sys.executable, "-m", "cgh_bench"]
    run, environment = tmp_path / "run", {**os.environ, "CGH_WORK": str(tmp_path / "work"), "OMP_NUM_THREADS": "1"}
    watch = subprocess.Popen([*verb, "watch", run, "--task", "animals_knn", "--seconds", "0.1"], env=environment)
    try:
        pretrain = [*verb, "pretrain", "cgh_r18_animals", "--snapshot-epochs", "1", "--out", run]
        subprocess.run([*pretrain, *(f"--set={s}" for s in settings)], check=True, env=environment)
        assert watch.wait(timeout=300) == 0, "it ends with the run"
    finally:
        watch.kill()
    results = [json.loads(line) for line in (tmp_path / "work/results.jsonl").read_text().splitlines()]
    name = f"cgh_r18_animals with {', '.join(settings)}"
    # The last epoch's backbone is the run's, whose evaluation is that of the snapshot.
    assert [result["checkpoint_name"] for result in results] == [f"{name}, epoch 1", f"{name}, epoch 2"]
    assert all(10 < result["metrics"]["top1"] <= 100 for result in results)
