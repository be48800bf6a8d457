"""Jobs, shown with submitit's processes of this machine in the place of SLURM."""

import os
import signal
import sys
import threading
import time

import pytest

from cgh_bench.core import slurm
from cgh_bench.core.errors import UserError
from cgh_bench.core.slurm import queue

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
    job = slurm.submit([sys.executable, "-c", code], "timeout_min=5,slurm_partition=gpu", tmp_path, 0, cluster="local")
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


def test_processes_do_not_see_the_warning_that_slurm_sends_to_all_of_a_job(tmp_path):
    """By default it would end them before they have saved."""
    started, done = tmp_path / "started", tmp_path / "done"
    code = f"""
import pathlib, time
pathlib.Path({str(started)!r}).write_text("yes")
time.sleep(0.3)
pathlib.Path({str(done)!r}).write_text("yes")
"""
    command = slurm.Command([sys.executable, "-c", code])
    thread = threading.Thread(target=command)
    thread.start()
    wait_for(started)
    assert command.process is not None
    command.process.send_signal(signal.SIGUSR2)
    thread.join()
    assert done.read_text() == "yes"
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGUSR2 not in blocked, "the job itself must see it"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("partition", "'partition' is not KEY=VALUE"),
        ("slurmpartition=x", "slurmpartition"),
        ("timeout_min=long", 'timeout_min" expected type'),
        ("nodes=many", "'many'"),
        ("nodes=2", "only one node"),
    ],
)
def test_wrong_options(options, match, tmp_path):
    with pytest.raises(UserError, match=match) as error:
        slurm.submit(["true"], options, None, 1, cluster="local")
    assert "\n" not in str(error.value)


def test_without_a_folder_nothing_is_queued(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert slurm.submit(["true"], "timeout_min=5", None, 1, cluster="local") == ""
    assert list(tmp_path.iterdir()) == []


def test_no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="srun|sbatch|slurm"):
        slurm.submit(["true"], "timeout_min=5", tmp_path, 1)


@pytest.fixture
def queued(monkeypatch):
    jobs = []
    monkeypatch.setattr(slurm, "submit", lambda *given: jobs.append(given) or "7")
    return jobs


OURS = [sys.executable, "-m", "cgh_bench"]


@pytest.mark.parametrize("option", [["--slurm", "timeout_min=5"], ["--slurm=timeout_min=5"]])
def test_the_command_queues_itself_without_the_option(option, tmp_path, queued):
    assert queue(["eval", "voc_det", *option, "--gpus", "2"], "timeout_min=5", 2, tmp_path) == "7"
    assert queued == [([*OURS, "eval", "voc_det", "--gpus", "2"], "timeout_min=5", tmp_path, 2, 1)]
    with pytest.raises(UserError, match="--gpus N"):
        queue(["eval", *option], "timeout_min=5", None, tmp_path)
    with pytest.raises(UserError, match="nodes=two must be a positive integer"):
        queue(["eval", *option, "--gpus=2"], "nodes=two", 2, tmp_path)


def test_on_several_nodes_an_evaluation_has_a_process_per_gpu(tmp_path, queued):
    assert [slurm.processes(options, 2) for options in ("", "nodes=1", "nodes=3")] == [2, 2, 6]
    assert (slurm.processes("nodes=3", 0), slurm.processes("", 0)) == (3, 0)
    queue(["eval", "voc_det", "--gpus=2", "--slurm=nodes=3"], "nodes=3", 2, tmp_path)
    queue(["eval", "voc_det", "--slurm=nodes=3"], "nodes=3", 2, tmp_path)  # with CGH_GPUS=2
    assert queued == 2 * [([*OURS, "eval", "voc_det"], "nodes=3", tmp_path, 2, 2)]


@pytest.mark.parametrize(("gpus", "tasks"), [(8, 8), (0, 1)])
def test_pretraining_has_a_process_per_gpu(gpus, tasks, tmp_path, queued):
    options = "nodes=2,timeout_min=5"
    arguments = ["pretrain", "r", f"--gpus={gpus}", "--slurm", options, "-o", "x"]
    queue(arguments, options, gpus, tmp_path, process_per_gpu=True)
    assert queued == [([*OURS, "pretrain", "r", "-o", "x"], options, tmp_path, gpus, tasks)]


def test_what_slurm_is_asked_for(tmp_path, monkeypatch):
    """A stand-in for sbatch keeps the script that it is given."""
    for program, does in (("srun", "exit 0"), ("sbatch", f"cp $1 {tmp_path}/script; echo Submitted batch job 7")):
        (tmp_path / program).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    options = "nodes=2,slurm_partition=gpu,timeout_min=1440"
    assert slurm.submit(["train"], options, tmp_path / "logs", 8, 8) == "7"
    script = (tmp_path / "script").read_text()
    for asked in ("nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "partition=gpu", "time=1440", "signal=USR2@90"):
        assert f"#SBATCH --{asked}\n" in script
    (job,) = (tmp_path / "logs").glob("*submitted.pkl")
    assert submitit.core.utils.DelayedSubmission.load(job).function == slurm.Command(["train"], 16)
