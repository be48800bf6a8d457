"""Run a protocol in another framework, as a process of its own: launch, follow, resume, check, read the metrics back.

The contract with `transfer_configs/FOLDER/train.py`, whatever the framework: it takes `--config --weights --work --gpus
--seed [--images-at-a-time] [--iterations] [--resume] [--set key=value …]`; it leaves `metrics.json` {metric: value},
`versions.json` {package: version} and `loaded.json` (see `_require_arrived`) in the work folder; each line of its
output that is a JSON object with `phase`, `done`, `of` and `loss` tells its progress; on SIGINT it saves its state in
`state.pth` and exits with 130; on Linux it dies with the process that `CGH_PARENT` names.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cgh_bench.backbones.resnet import require_resnet
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.converters.base import find as find_converter
from cgh_bench.core.config import plain
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.core.files import remove_tree, remove_unfinished, write_text
from cgh_bench.core.progress import Tick, progress
from cgh_bench.foreign import failure, frameworks, launch
from cgh_bench.transfer_configs.contract import PARENT

SECONDS_TO_STOP = 120.0
"""How long an interrupted process may take to save its state."""


@dataclass(frozen=True)
class Job:
    """One run."""

    framework: str
    protocol: str
    """Name of the protocol file."""
    seed: int
    identity: str
    """Fingerprint of the protocol and the data: a run of another is never taken up."""
    iterations: int | None = None
    """None: as many as the protocol file says."""
    settings: tuple[str, ...] = ()
    """`key=value` in the framework's own words."""


def run(job: Job, checkpoint: Checkpoint, data_root: Path, folder: Path) -> dict[str, float]:
    """Run `job` in `folder`, which holds nothing else, and return its metrics.

    A finished run of the same job and checkpoint is read back; an interrupted one goes on; the remains of another are
    removed.

    Args:
        job: what to run.
        checkpoint: its trunk is converted, handed over, and proven to have arrived.
        data_root: where the protocol finds its data sets (`CGH_DATA` of the process).
        folder: everything is written here; `log.txt` is the framework's own output.

    Raises:
        UserError: the framework is absent or the process failed; the message ends with the log's place.
        CheckFailed: not every tensor arrived, or other preprocessing is in force than the checkpoint's.
        KeyboardInterrupt: passed on after the process has saved its state.
    """
    framework = frameworks.find(job.framework)
    frameworks.require_installed(job.framework)
    _take_over(folder, json.dumps({"checkpoint": checkpoint.id, **plain(job)}, indent=1))
    if not (folder / "metrics.json").exists():
        weights = folder / "weights.pth"
        find_converter(framework.converter).write(checkpoint, weights)
        command = _command(job, framework.settings(checkpoint), weights, folder)
        _launch(command, {**framework.environment, "CGH_DATA": str(data_root.resolve())}, folder, job)
    for no_longer_needed in ("weights.pth", "state.pth"):
        (folder / no_longer_needed).unlink(missing_ok=True)
    _require_arrived(folder, checkpoint, framework.tensors_given(checkpoint))
    metrics: dict[str, float] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _take_over(folder: Path, identity: str) -> None:
    """Make `folder` that of the run `identity`, removing what another run has left in it."""
    note = folder / "job.json"
    if note.exists() and note.read_text(encoding="utf-8") != identity:
        remove_tree(folder)
    if not note.exists():
        remove_unfinished(folder)
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} holds something else than a run; remove it or name another folder")
        write_text(note, identity)


def _command(job: Job, settings: Mapping[str, Any], weights: Path, folder: Path) -> list[str]:
    framework = frameworks.find(job.framework)
    given = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return [
        *framework.command("train"),
        f"--config={frameworks.protocol_file(job.framework, job.protocol)}",
        f"--weights={weights}",
        f"--work={folder}",
        *launch.arguments(),
        f"--seed={job.seed}",
        "--resume",
        *([f"--iterations={job.iterations}"] if job.iterations else []),
        "--set",
        *given,
        *job.settings,
    ]


def _launch(command: list[str], environment: dict[str, str], folder: Path, job: Job) -> None:
    """Run the command to its end. The process has a session of its own, so that Ctrl-C reaches it once, from here."""
    log_path = folder / "log.txt"
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
        try:
            _follow(process.stdout, log, f"{job.protocol} in {job.framework}")
            process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                rest, _ = process.communicate(timeout=SECONDS_TO_STOP)
                log.write(rest)
            raise
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode:
        with log_path.open("rb") as log_of_all:
            log_of_all.seek(earlier)
            printed = log_of_all.read().decode(errors="replace")
        raise _failure(process.returncode, printed, folder, job)


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """While the block runs SIGTERM is Ctrl-C, so that the process can save its state: it is killed when this one dies.

    In the main thread; signals reach no other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _follow(lines: Iterable[str], log: IO[str], title: str) -> None:
    """Show the progress, phase by phase; every other line goes to the log."""
    phase, tick = "", None
    with contextlib.ExitStack() as shown:
        for line in lines:
            step = _step(line)
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


def _step(line: str) -> dict[str, Any] | None:
    """The progress that a line tells, if it does."""
    if not line.startswith('{"phase"'):
        return None
    try:
        step: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return step


def _failure(code: int, printed: str, folder: Path, job: Job) -> Exception:
    """What to tell of a process that ended with `code`; where it does not say why, its last lines go to stderr."""
    loaded = _loaded(folder)
    if loaded and (loaded["missing"] or loaded["unfilled"]):
        return _not_arrived(loaded)
    cause, shown = failure.told(code, printed)
    log = folder / "log.txt"
    if shown:
        print(f"the end of {log}:", *shown, sep="\n  ", file=sys.stderr)
    goes_on = "; the same command goes on from the last saved state" if (folder / "state.pth").exists() else ""
    return UserError(f"{job.protocol} failed in {job.framework}: {cause}{goes_on}; its log is {log}")


def _require_arrived(folder: Path, checkpoint: Checkpoint, given: int) -> None:
    """Check the framework's own account of the model that it trained, to which `given` tensors were handed.

    Raises:
        CheckFailed: see `run`.
    """
    loaded = _loaded(folder)
    if loaded is None:
        raise CheckFailed(f"{folder} has no loaded.json: nothing proves that the weights arrived")
    if loaded["missing"] or loaded["unfilled"] or not loaded["given"] == loaded["arrived"] == given:
        raise _not_arrived(loaded)
    expected, in_force = checkpoint.preprocessing, loaded["in_force"]
    scale = 255 / expected.input_range
    wanted = [scale * value for value in (*expected.mean, *expected.std)]
    same = all(
        math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5) for a, b in zip(wanted, in_force["mean_std"], strict=True)
    )
    stride = require_resnet(checkpoint.architecture, checkpoint.name).stride_in_1x1
    if not same or in_force["channel_order"] != expected.channel_order or in_force["stride_in_1x1"] != stride:
        raise CheckFailed(f"the framework prepared images by {in_force}; the checkpoint needs {expected}, {stride=}")


def _not_arrived(loaded: Mapping[str, Any]) -> CheckFailed:
    names = ", ".join([*loaded["missing"], *loaded["unfilled"]][:3])
    return CheckFailed(
        f"of {loaded['given']} tensors {loaded['arrived']} arrived in the framework's model, "
        f"{len(loaded['unfilled'])} places got none ({names}); the protocol is for another network than the checkpoint"
    )


def _loaded(folder: Path) -> dict[str, Any] | None:
    path = folder / "loaded.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
