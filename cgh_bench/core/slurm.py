"""Submit a command as a SLURM job through submitit; a job that is pre-empted or out of time is queued again."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cgh_bench.core.errors import UserError, one_line
from cgh_bench.core.files import scratch

if TYPE_CHECKING:
    import submitit

TIMEOUTS = 10
"""How often a job that ran out of time is queued again; a pre-empted one always is."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a command that was interrupted and has saved its state."""


@dataclass
class Command:
    """One process per task of the job. Interrupted, it saves its state, and the next job resumes."""

    arguments: list[str]
    processes: int = 1
    """Tasks of the job; several get the environment that `torchrun` would set, and work together."""
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def __call__(self) -> None:
        """Run to the end.

        Raises:
            RuntimeError: the command failed; the job's log has the reason.
        """
        if self.processes > 1:
            import submitit

            submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        with _warning_blocked():
            self.process = subprocess.Popen(self.arguments)
        code = self.process.wait()
        # All processes stop with the first one, whose task queues the job again; the others have not failed.
        if code and not (code == INTERRUPTED and self.processes > 1 and os.environ["RANK"] != "0"):
            raise RuntimeError(f"exit code {code}")

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """Called by submitit in the first task when SLURM warns: stop the command and return what to queue."""
        import submitit

        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            # Not `process.wait()`: this signal handler may have interrupted that call, which holds a lock.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Command(self.arguments, self.processes))


@contextlib.contextmanager
def _warning_blocked() -> Iterator[None]:
    """Processes started in this block do not get SLURM's warning signal, which would end them."""
    warning = {getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")}
    signal.pthread_sigmask(signal.SIG_BLOCK, warning)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, warning)


def processes(options: str, gpus: int | None) -> int:
    """How many processes a job has, one per GPU of all nodes; 0: one, on the CPU.

    Raises:
        UserError: `--gpus` is missing, or an option is not KEY=VALUE.
    """
    if gpus is None:
        raise UserError("--slurm needs --gpus N, the GPUs per node")
    nodes = _nodes(options)
    return nodes * max(1, gpus) if nodes > 1 else gpus


def _nodes(options: str) -> int:
    nodes = _parse(options).get("nodes", 1)
    if not isinstance(nodes, int) or nodes < 1:
        raise UserError(f"--slurm {options}: nodes={nodes} must be a positive integer")
    return nodes


def queue(
    arguments: list[str], options: str, gpus: int | None, logs: Path | None, *, process_per_gpu: bool = False
) -> str:
    """Queue the current command, without `--slurm`; returns the job's number.

    Args:
        arguments: the command line, without the program.
        options: as in `submit`.
        gpus: `--gpus`, per node.
        logs: a folder that the nodes share; None checks everything and queues nothing.
        process_per_gpu: one process per GPU, as `torchrun` would start, and without `--gpus`; so it is on several nodes
            in any case. Else one process, which gets `--gpus`.

    Raises:
        UserError: as `submit`, or `--gpus` is missing.
    """
    processes(options, gpus)
    assert gpus is not None
    per_gpu = process_per_gpu or _nodes(options) > 1
    for option in ("--slurm", "--gpus") if per_gpu else ("--slurm",):
        arguments = _without(arguments, option)
    tasks = max(1, gpus) if per_gpu else 1
    return submit([sys.executable, "-m", "cgh_bench", *arguments], options, logs, gpus, tasks)


def _without(arguments: list[str], option: str) -> list[str]:
    place = next((i for i, argument in enumerate(arguments) if argument.partition("=")[0] == option), None)
    if place is None:  # it is in the environment
        return arguments
    return [*arguments[:place], *arguments[place + (1 if "=" in arguments[place] else 2) :]]


def submit(
    arguments: list[str], options: str, logs: Path | None, gpus: int, tasks: int = 1, cluster: str = "slurm"
) -> str:
    """Queue a command; returns the job's number.

    Args:
        arguments: the command.
        options: `key=value,…` for submitit: `timeout_min`, `cpus_per_task`, `mem_gb`, `nodes`, and SLURM's own as
            `slurm_partition`, `slurm_account`, ….
        logs: a folder that the nodes share; None checks everything and queues nothing.
        gpus: GPUs per node.
        tasks: processes per node; they work together, across all nodes.
        cluster: "slurm", or "local" for processes of this machine.

    Raises:
        UserError: submitit or SLURM is not installed, or an unknown option.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError("--slurm needs submitit; pip install submitit") from None
    chosen = {"nodes": 1, "tasks_per_node": tasks, "gpus_per_node": gpus, "name": "cgh-bench", **_parse(options)}
    try:
        command = Command(arguments, int(chosen["nodes"]) * int(chosen["tasks_per_node"]))
        with scratch() as nowhere:  # submitit makes the folder before anything is queued
            folder = logs or nowhere
            executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=TIMEOUTS)
            executor.update_parameters(**chosen)
            return str(executor.submit(command).job_id) if logs else ""
    # What submitit raises for unknown options, values of a wrong type, and without SLURM.
    except (NameError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(f"--slurm {options}: {one_line(error)}") from None


def _parse(options: str) -> dict[str, str | int]:
    pairs = [part.partition("=") for part in options.split(",") if part]
    if wrong := [key for key, _, value in pairs if not value]:
        raise UserError(f"--slurm {options}: {wrong[0]!r} is not KEY=VALUE, such as slurm_partition=gpu")
    return {key: int(value) if value.isdecimal() else value for key, _, value in pairs}
