"""A command as a SLURM job, through submitit; what it has not finished when its time is over is queued again."""

import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cgh_bench.errors import UserError

if TYPE_CHECKING:
    import submitit


@dataclass
class Command:
    """A process in the job. Interrupted, ours save their state and go on in the next job."""

    arguments: list[str]
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def __call__(self) -> None:
        """Run to the end.

        Raises:
            RuntimeError: it failed; the job's log says why.
        """
        self.process = subprocess.Popen(self.arguments)
        if code := self.process.wait():
            raise RuntimeError(f"exit code {code}")

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """What submitit asks for when SLURM's warning comes: stop, and say what is to be queued."""
        import submitit

        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
        return submitit.helpers.DelayedSubmission(Command(self.arguments))


def submit(arguments: list[str], options: str, gpus: int, folder: Path, cluster: str = "slurm") -> str:
    """Queue a command on one node; the job's number.

    Args:
        arguments: the command.
        options: `key=value,…` of submitit: `timeout_min`, `cpus_per_task`, `mem_gb`, and SLURM's own as
            `slurm_partition`, `slurm_account`, ….
        gpus: how many the job gets.
        folder: its logs, shared with the nodes.
        cluster: "slurm", or "local" for a process of this machine.

    Raises:
        UserError: submitit or SLURM is not there, or an option that it has not.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError("--slurm needs submitit; pip install submitit") from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(nodes=1, tasks_per_node=1, gpus_per_node=gpus, name="cgh-bench", **_parse(options))
        return str(executor.submit(Command(arguments)).job_id)
    except (NameError, RuntimeError) as error:  # what submitit raises for unknown options, and where SLURM is not
        raise UserError(f"--slurm {options}: {' '.join(str(error).split())}") from None


def _parse(options: str) -> dict[str, str | int]:
    pairs = [part.partition("=") for part in options.split(",") if part]
    if wrong := [key for key, _, value in pairs if not value]:
        raise UserError(f"--slurm {options}: {wrong[0]!r} is no key=value; say slurm_partition=NAME,timeout_min=1440")
    return {key: int(value) if value.isdecimal() else value for key, _, value in pairs}
