"""Pretraining as a job: told to stop as SLURM would, queued again, it ends with the bits of the uninterrupted run.

In SLURM's place are submitit's processes of this machine.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
from test_pretrain import SCRIPT, assert_same_run, lines, one_thread

from cgh_bench.core import slurm

pytest.importorskip("submitit")

# Tells its own number and its parent's, submitit's, before it trains.
TOLD = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(SCRIPT.parent)!r})
out, *options = sys.argv[1:]
Path(f"{{out}}.rank{{os.environ.get('RANK', '0')}}").write_text(f"{{os.getppid()}} {{os.getpid()}}")
import pretrain_process
pretrain_process.main(out, *options)
"""


def queued(out, tasks=1):
    command = [sys.executable, "-c", TOLD, str(out), "1", "3", "0.5", "slowly"]
    return slurm.submit(command, "timeout_min=10", out.parent / "logs", 0, tasks, "local")


def wait_until(done, seconds=180):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def warn(out):
    """SLURM's warning comes to every process of the job."""
    for told in out.parent.glob(f"{out.name}.rank*"):
        for process in told.read_text().split():
            os.kill(int(process), signal.SIGUSR2)


def interrupted_and_queued_again(out, tasks=1):
    job = queued(out, tasks)
    wait_until((out / "checkpoint.pt").exists)  # the end of the first epoch
    warn(out)
    wait_until(lambda: os.waitpid(int(job), os.WNOHANG)[0])
    logs = "".join(path.read_text() for path in (out.parent / "logs").glob("*_log.*"))
    assert "saved; rerun the same command to resume" in logs and f"Requeued job {job}" in logs
    assert logs.count("Job completed successfully") in (tasks, 2 * tasks - 1), "no process of the first job failed"
    assert "Submitted job triggered an exception" not in logs


@pytest.mark.slow
def test_a_job_that_is_queued_again_ends_with_the_same_bits(tmp_path, whole):
    interrupted_and_queued_again(tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
def test_so_does_a_job_of_two_processes(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, SCRIPT, tmp_path / "whole"], check=True, env=one_thread())
    interrupted_and_queued_again(tmp_path / "run", 2)
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 5, 10, 15]
    assert_same_run(tmp_path / "whole", tmp_path / "run")
