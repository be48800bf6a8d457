"""Jobs, shown with submitit's processes of this machine in the place of SLURM."""

import sys
import threading
import time

import pytest

from cgh_bench import slurm
from cgh_bench.cli.evaluating import queue
from cgh_bench.errors import UserError

submitit = pytest.importorskip("submitit")


def wait_for(path, seconds: float = 60.0) -> str:
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return path.read_text()


def test_a_command_runs_as_a_job(tmp_path):
    done = tmp_path / "done"
    code = f"import pathlib; pathlib.Path({str(done)!r}).write_text('yes')"
    job = slurm.submit([sys.executable, "-c", code], "timeout_min=5,slurm_partition=gpu", 0, tmp_path, "local")
    assert wait_for(done) == "yes"
    assert job.isdecimal()


def test_the_warning_interrupts_the_process_and_queues_it_again(tmp_path):
    started, saved = tmp_path / "started", tmp_path / "saved"
    code = f"""
import pathlib, time
try:
    pathlib.Path({str(started)!r}).write_text("yes")
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path({str(saved)!r}).write_text("yes")
"""
    command = slurm.Command([sys.executable, "-c", code])
    thread = threading.Thread(target=command)
    thread.start()
    wait_for(started)
    again = command.checkpoint()
    thread.join()
    assert saved.read_text() == "yes"
    assert again.function == slurm.Command(command.arguments)


def test_a_failure_is_one_of_the_job():
    with pytest.raises(RuntimeError, match="exit code 3"):
        slurm.Command([sys.executable, "-c", "raise SystemExit(3)"])()


@pytest.mark.parametrize(
    ("options", "match"), [("partition", "'partition' is no key=value"), ("slurmpartition=x", "slurmpartition")]
)
def test_wrong_options(options, match, tmp_path):
    with pytest.raises(UserError, match=match):
        slurm.submit(["true"], options, 1, tmp_path, "local")


def test_no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="srun|sbatch|slurm"):
        slurm.submit(["true"], "timeout_min=5", 1, tmp_path)


@pytest.mark.parametrize("option", [["--slurm", "timeout_min=5"], ["--slurm=timeout_min=5"]])
def test_the_command_queues_itself_without_the_option(option, tmp_path, monkeypatch):
    queued = []
    monkeypatch.setattr(slurm, "submit", lambda *given: queued.append(given) or "7")
    assert queue(["eval", "voc_det", *option, "--gpus", "2"], "timeout_min=5", 2, tmp_path) == "7"
    assert queued == [
        ([sys.executable, "-m", "cgh_bench", "eval", "voc_det", "--gpus", "2"], "timeout_min=5", 2, tmp_path)
    ]
    with pytest.raises(UserError, match="--gpus N"):
        queue(["eval", *option], "timeout_min=5", None, tmp_path)
