"""Run a protocol in another framework, as a process of its own: launch, follow, resume, check, read the metrics back.

The contract with the module `train` of a framework's folder in `transfer_configs`: it takes `--config --weights --work
--gpus --seed [--images-at-a-time] [--data] [--iterations] [--resume] [--set key=value …]`. It writes `metrics.json`
{metric: value}, `versions.json` {package: version} and `loaded.json` (see `_require_arrived`) to the work folder.
Each line of its output that is a JSON object with `phase`, `done`, `of` and `loss` reports progress. On SIGINT it
saves its state as `state.pth` and exits with 130. A trained network (`model.pth`) is only evaluated. On Linux it dies
with the process that `CGH_PARENT` names. Started by `torchrun`, on one machine or several, each of our processes starts
one of the framework's, and these work together.
"""

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cgh_bench.core.config import identity, later
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.core.files import remove_tree, remove_unfinished, write_text
from cgh_bench.core.progress import Tick, progress
from cgh_bench.core.slurm import INTERRUPTED
from cgh_bench.data.dense import DenseData, Own
from cgh_bench.foreign import frameworks
from cgh_bench.foreign.failures import explain
from cgh_bench.foreign.launch import DEFAULT_LAUNCH, Launch
from cgh_bench.transfer_configs.contract import PARENT

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint


@dataclass(frozen=True)
class Job:
    """One run."""

    framework: str
    protocol: str
    """The name of the protocol file."""
    seed: int
    identity: str
    """Fingerprint of the protocol and of what is trained on: a run with another one is never resumed."""
    val: str = ""
    """Fingerprint of what is evaluated on: with another one, the trained network is evaluated again."""
    iterations: int | None = None
    """None: as many as in the protocol file."""
    settings: tuple[str, ...] = ()
    """`key=value` under the framework's names."""
    carried: bool = later(False)
    """Whether the framework's network has our backbone in it, whose weights are our own file."""


def run(
    job: Job,
    checkpoint: "Checkpoint",
    write_weights: Callable[[Path], None],
    data: DenseData,
    folder: Path,
    launch: Launch = DEFAULT_LAUNCH,
) -> dict[str, float]:
    """Run `job` in `folder`, which holds nothing else, and return its metrics.

    A finished run of the same job and checkpoint is read back; an interrupted one is resumed; the remains of another
    are removed.

    Args:
        job: what to run.
        checkpoint: whose preprocessing and weights are used, and proven to be in force.
        write_weights: writes them to a file in the framework's format.
        data: where the protocol finds its datasets (`CGH_DATA` of the process), or the user's own in their place.
        folder: everything is written here; `log.txt` is the framework's own output.
        launch: on what it runs.

    Raises:
        UserError: the framework is not installed or the process failed; the message ends with the path of the log.
        CheckFailed: not every tensor arrived, or preprocessing other than the checkpoint's is in force.
        KeyboardInterrupt: passed on after the process has saved its state.
    """
    from cgh_bench.core import dist

    framework, is_first = frameworks.find(job.framework), dist.rank() == 0
    frameworks.require_installed(job.framework)
    if is_first:
        _take_over(folder, {"checkpoint": checkpoint.id, **identity(job)})
    if not dist.agreed((folder / "metrics.json").exists()):
        weights = folder / ("weights.safetensors" if job.carried else "weights.pth")
        settings = (framework.preprocessing if job.carried else framework.settings)(checkpoint)
        if is_first:
            write_weights(weights)
        command = [
            *framework.command("train"),
            f"--config={frameworks.protocol_file(job.framework, job.protocol)}",
            f"--weights={weights}",
            f"--work={folder}",
            *launch.arguments(),
            f"--seed={job.seed}",
            "--resume",
            *([f"--data={data.file}"] if isinstance(data, Own) else []),
            *([f"--iterations={job.iterations}"] if job.iterations else []),
            "--set",
            *(f"{key}={json.dumps(value)}" for key, value in settings.items()),
            *job.settings,
        ]
        environment = {**framework.environment, **_meeting(), "CGH_DATA": str(data.root.resolve())}
        _run_to_the_end(command, environment, folder, job)
    for no_longer_needed in ("weights.pth", "weights.safetensors", "probe.pth", "state.pth") if is_first else ():
        (folder / no_longer_needed).unlink(missing_ok=True)
    given = len(checkpoint.weights) if job.carried else framework.tensors_given(checkpoint)
    _require_arrived(folder, checkpoint, given, job.carried)
    metrics: dict[str, float] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _meeting() -> dict[str, str]:
    """Where the frameworks' processes meet, if each process of `torchrun` starts one: beside our own meeting place."""
    from cgh_bench.core import dist

    if dist.world_size() == 1:
        return {}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {"MASTER_PORT": str(dist.agreed(port)), "TORCHELASTIC_USE_AGENT_STORE": "False"}


def _take_over(folder: Path, job: dict[str, Any]) -> None:
    """Make `folder` the folder of the run `job`; what another run left in it is removed, of other val its metrics."""
    note = folder / "job.json"
    there = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    if there and {**there, "val": ""} != {**job, "val": ""}:
        remove_tree(folder)
        there = {}
    if there and there["val"] != job["val"]:
        (folder / "metrics.json").unlink(missing_ok=True)
    if not there:
        remove_unfinished(folder)
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not a run folder; remove it or choose another")
    if there != job:
        write_text(note, json.dumps(job, indent=1))


def _run_to_the_end(command: list[str], environment: dict[str, str], folder: Path, job: Job) -> None:
    """Run the command, here and in all other processes. It has its own session: Ctrl-C reaches it once, from here."""
    from cgh_bench.core import dist
    from cgh_bench.foreign import others

    log_path = folder / (f"log{dist.rank()}.txt" if dist.rank() else "log.txt")
    with log_path.open("a", encoding="utf-8") as log, _termination_as_interrupt():
        earlier = log.tell()
        process = subprocess.Popen(
            command,
            env={**environment, PARENT: str(os.getpid())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout is not None
        together = others.Others(process)
        try:
            _follow(process.stdout, log, f"{job.protocol} in {job.framework}")
            process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                rest, _ = process.communicate(timeout=others.SECONDS_TO_STOP)
                log.write(rest)
            raise
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            together.wait()
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt  # it was one of several, of which another was told to stop
    if together.ended_early:
        raise UserError(
            f"{job.protocol} stopped: another of the {dist.world_size()} processes has ended or has said nothing for "
            f"{others.SILENCE.total_seconds():g} seconds; see its log in {folder}, then rerun to resume"
        )
    if process.returncode:
        with log_path.open("rb") as whole_log:
            whole_log.seek(earlier)
            printed = whole_log.read().decode(errors="replace")
        raise _failure(process.returncode, printed, log_path, job)


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """While the block runs, treat SIGTERM as Ctrl-C, so that the process can save its state: it dies with this one.

    A second SIGTERM does nothing: under SLURM there is one from SLURM and one from torchrun. Only in the main thread;
    signals reach no other.
    """

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _follow(lines: Iterable[str], log: IO[str], title: str) -> None:
    """Show the progress, phase by phase; every other line goes to the log."""
    phase, tick = "", None
    with contextlib.ExitStack() as shown:
        for line in lines:
            step = progress_in(line)
            if step is None:
                log.write(line)
                log.flush()
                continue
            if step["phase"] != phase:
                shown.close()
                phase = step["phase"]
                tick = shown.enter_context(progress(f"{title}, {phase}", step["of"]))
            _show(tick, step)


def _show(tick: Tick | None, step: dict[str, Any]) -> None:
    if tick is not None:
        tick(step["done"], "" if step["loss"] is None else f"loss {step['loss']:.3f}")


def progress_in(line: str) -> dict[str, Any] | None:
    """The progress that a line of output reports; None for any other line."""
    if not line.startswith('{"phase"'):
        return None
    try:
        step: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return step


def _require_arrived(folder: Path, checkpoint: "Checkpoint", given: int, carried: bool = False) -> None:
    """Check the framework's account of the model that it trained, which was given `given` tensors.

    Where the backbone is a carried one, its stages on a probe image were compared before the first step.

    Raises:
        CheckFailed: see `run`.
    """
    from cgh_bench.backbones.resnet import require_resnet

    loaded = _loaded(folder)
    if loaded is None:
        raise CheckFailed(f"{folder} has no loaded.json, so it is unknown whether the weights arrived")
    if loaded["missing"] or loaded["unfilled"] or not loaded["given"] == loaded["arrived"] == given:
        raise _not_arrived(loaded)
    expected, in_force = checkpoint.preprocessing, loaded["in_force"]
    scale = 255 / expected.input_range
    wanted = [scale * value for value in (*expected.mean, *expected.std)]
    same = all(
        math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5) for a, b in zip(wanted, in_force["mean_std"], strict=True)
    )
    if carried:
        if not same or in_force["channel_order"] != expected.channel_order or not loaded.get("stages"):
            raise CheckFailed(f"the framework used {in_force} and compared {loaded.get('stages')}; needed: {expected}")
        return
    stride = require_resnet(checkpoint.architecture, checkpoint.name).stride_in_1x1
    if not same or in_force["channel_order"] != expected.channel_order or in_force["stride_in_1x1"] != stride:
        raise CheckFailed(f"the framework used {in_force}, but the checkpoint needs {expected}, stride_in_1x1={stride}")


def _not_arrived(loaded: Mapping[str, Any]) -> CheckFailed:
    names = ", ".join([*loaded["missing"], *loaded["unfilled"]][:3])
    return CheckFailed(
        f"{loaded['arrived']} of {loaded['given']} tensors arrived in the framework's model, and "
        f"{len(loaded['unfilled'])} of its tensors got none ({names}); the protocol is for another network"
    )


def _loaded(folder: Path) -> dict[str, Any] | None:
    path = folder / "loaded.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _failure(code: int, printed: str, log: Path, job: Job) -> Exception:
    """The error for a process that ended with `code`; the end of its log is printed if that explains more."""
    loaded = _loaded(log.parent)
    if loaded and (loaded["missing"] or loaded["unfilled"]):
        return _not_arrived(loaded)
    cause, shown = explain(code, printed)
    if shown:
        print(f"the end of {log}:", *shown, sep="\n  ", file=sys.stderr)
    resume = "; rerun to resume from the last saved state" if log.with_name("state.pth").exists() else ""
    return UserError(f"{job.protocol} failed in {job.framework}: {cause}{resume}; see {log}")
