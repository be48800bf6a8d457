"""The linear probe in several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import linear_process
import pytest
import torch

from cgh_bench.frozen import features

SCRIPT = Path(linear_process.__file__)


def test_two_processes_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, SCRIPT.parents[1:3]))}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, SCRIPT, tmp_path / "two"], check=True, env=environment)
    monkeypatch.setattr(features, "_pair", None)  # set by the script; put back at the end
    linear_process.main(str(tmp_path / "one"))
    one, two = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("one", "two"))
    for feature in ("layer4", "layer3"):
        torch.testing.assert_close(
            two["learner"][feature]["weights"], one["learner"][feature]["weights"], atol=1e-5, rtol=1e-4
        )
    records = [json.loads((tmp_path / name / "epochs.json").read_text()) for name in ("one", "two")]
    assert records[0]["heads"] == records[1]["heads"]
    for epoch_of_one, epoch_of_two in zip(*(record["epochs"] for record in records), strict=True):
        assert epoch_of_one.keys() == epoch_of_two.keys()
        for name, values in epoch_of_one.items():
            assert values == pytest.approx(epoch_of_two[name])
