"""A command as a SLURM job, through submitit; what it has not finished when it is pre-empted is queued again."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cgh_bench.core.errors import UserError

if TYPE_CHECKING:
    import submitit

TIMEOUTS = 10
"""How often a job whose time was over is queued again; one that was pre-empted always is."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a command that has saved its state because it was told to stop."""


@dataclass
class Command:
    """A process in each task of the job. Interrupted, ours save their state and go on in the next job."""

    arguments: list[str]
    processes: int = 1
    """Tasks of the job; several are told of each other, as `torchrun` would, and work together."""
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def __call__(self) -> None:
        """Run to the end.

        Raises:
            RuntimeError: it failed; the job's log says why.
        """
        if self.processes > 1:
            import submitit

            submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        with _warning_blocked():
            self.process = subprocess.Popen(self.arguments)
        code = self.process.wait()
        # All processes stop with the first one, whose task queues the job again: no failure of the others.
        if code and not (code == INTERRUPTED and self.processes > 1 and os.environ["RANK"] != "0"):
            raise RuntimeError(f"exit code {code}")

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """What submitit asks the first task for when SLURM's warning comes: stop, and say what is to be queued."""
        import submitit

        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            # Not `process.wait()`: this is a signal's handler, which interrupts that very call and its lock.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Command(self.arguments, self.processes))


@contextlib.contextmanager
def _warning_blocked() -> Iterator[None]:
    """Processes started in this block never see SLURM's warning, which comes to all of a job, and would end them."""
    warning = {getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")}
    signal.pthread_sigmask(signal.SIG_BLOCK, warning)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, warning)


def queue(arguments: list[str], options: str, gpus: int | None, logs: Path, *, process_a_gpu: bool = False) -> str:
    """Queue this very command, but for `--slurm`; the job's number.

    Args:
        arguments: the command line, without the program.
        options: as in `submit`.
        gpus: `--gpus`, of each node.
        logs: a folder that the nodes share.
        process_a_gpu: as `torchrun` would start the command, on any number of nodes, and without `--gpus`; else it is
            one process on one node, which knows what to do with `--gpus`.

    Raises:
        UserError: as `submit`, or without `--gpus`, or with several nodes for what needs one.
    """
    if gpus is None:
        raise UserError("--slurm needs to know how many GPUs the job gets: --gpus N")
    if not process_a_gpu and "nodes" in _parse(options):
        raise UserError(f"--slurm {options}: this is a job on one node; leave nodes out")
    for option in ("--slurm", "--gpus") if process_a_gpu else ("--slurm",):
        arguments = _without(arguments, option)
    tasks = max(1, gpus) if process_a_gpu else 1
    return submit([sys.executable, "-m", "cgh_bench", *arguments], options, logs, gpus, tasks)


def _without(arguments: list[str], option: str) -> list[str]:
    place = next(i for i, argument in enumerate(arguments) if argument.partition("=")[0] == option)
    return [*arguments[:place], *arguments[place + (1 if "=" in arguments[place] else 2) :]]


def submit(arguments: list[str], options: str, logs: Path, gpus: int, tasks: int = 1, cluster: str = "slurm") -> str:
    """Queue a command; the job's number.

    Args:
        arguments: the command.
        options: `key=value,…` of submitit: `timeout_min`, `cpus_per_task`, `mem_gb`, `nodes`, and SLURM's own as
            `slurm_partition`, `slurm_account`, ….
        logs: a folder that the nodes share.
        gpus: how many each node has for the job.
        tasks: how often the command runs on each node; several work together, over all nodes.
        cluster: "slurm", or "local" for processes of this machine.

    Raises:
        UserError: submitit or SLURM is not there, or an option that it has not.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError("--slurm needs submitit; pip install submitit") from None
    chosen = {"nodes": 1, "tasks_per_node": tasks, "gpus_per_node": gpus, "name": "cgh-bench", **_parse(options)}
    try:
        command = Command(arguments, int(chosen["nodes"]) * int(chosen["tasks_per_node"]))
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster, slurm_max_num_timeout=TIMEOUTS)
        executor.update_parameters(**chosen)
        return str(executor.submit(command).job_id)
    # What submitit raises for unknown options, for values of a wrong type, and where SLURM is not.
    except (NameError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(f"--slurm {options}: {' '.join(str(error).split())}") from None


def _parse(options: str) -> dict[str, str | int]:
    pairs = [part.partition("=") for part in options.split(",") if part]
    if wrong := [key for key, _, value in pairs if not value]:
        raise UserError(f"--slurm {options}: {wrong[0]!r} is no key=value; say slurm_partition=NAME,timeout_min=1440")
    return {key: int(value) if value.isdecimal() else value for key, _, value in pairs}
