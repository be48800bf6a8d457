"""Evaluate one checkpoint by one task: find, override, run, stamp, append. No task can forget any of it."""

import contextlib
import datetime
import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cgh_bench import results, tasks
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core import dist
from cgh_bench.core.config import fingerprint, identity, override, plain
from cgh_bench.core.device import pick_device
from cgh_bench.core.errors import CheckFailed
from cgh_bench.core.files import alone_in
from cgh_bench.data import catalog, find_folder
from cgh_bench.data.dense import layouts
from cgh_bench.frozen.features import pair_fingerprint
from cgh_bench.results import Result
from cgh_bench.tasks import Folders, Metric, Planned, Task, Versioned
from cgh_bench.tasks.transfer import in_framework
from cgh_bench.workspace import Workspace

PACKAGES = (
    "cgh-bench",
    "torch",
    "torchvision",
    "numpy",
    "faiss-cpu",
    "faiss-gpu",
    "mmengine",
    "mmcv",
    "mmdet",
    "mmsegmentation",
    "onedl-mmengine",
    "onedl-mmcv",
    "onedl-mmdetection",
    "onedl-mmsegmentation",
    "detectron2",
)


@dataclass(frozen=True)
class Evaluation:
    """A task with its overrides applied, ready to run on any checkpoint."""

    name: str
    task: Task
    overridden: tuple[str, ...] = ()

    @property
    def protocol(self) -> str:
        """See `protocol_id`."""
        return protocol_id(self.name, self.task)


def protocol_id(name: str, task: Task) -> str:
    """Name and fingerprint of the whole configuration: whatever changes a number's meaning changes this.

    A folder of the user's enters by its content, so that the id is the same wherever that lies, on any machine.
    """
    config = identity(task)
    if task.data not in {*catalog(), *layouts()} and task.data and find_folder(task.data):
        config["data"] = pair_fingerprint(task.data)
    return f"{name}@{fingerprint(config)[:8]}"


def prepare(name: str, settings: Sequence[str] = ()) -> Evaluation:
    """The task of that name with each `field=value` of `settings` applied.

    Naming the data of a task that has none of its own is no override: it makes another protocol. Nor is naming the
    framework, which chooses among tasks.

    Raises:
        UserError: unknown task or field (nearest names given), or a value of the wrong type.
    """
    for framework in [s.removeprefix("framework=") for s in settings if s.startswith("framework=")]:
        name = in_framework(name, framework)
    settings = [s for s in settings if not s.startswith("framework=")]
    task = tasks.find(name)
    changes = tuple(s for s in settings if not (s.startswith("data=") and not task.data))
    return Evaluation(name, override(task, settings), changes)


def find_finished(evaluation: Evaluation, checkpoint: Checkpoint, seed: int, workspace: Workspace) -> Result | None:
    """The latest result of exactly this evaluation on exactly these data, if there is one."""
    data = evaluation.task.data_fingerprint(workspace.cache)
    records, _ = results.read(workspace.store)
    wanted = (evaluation.protocol, checkpoint.id, seed, data)
    same = [r for r in records if (r.protocol, r.checkpoint, r.seed, r.data) == wanted]
    return same[-1] if same else None


def evaluate(evaluation: Evaluation, checkpoint: Checkpoint, seed: int, workspace: Workspace) -> Result:
    """Run the evaluation and append its result to the workspace's store.

    Raises:
        UserError: the data are absent or broken, the same evaluation is running elsewhere, or the task cannot use this
            checkpoint.
        CheckFailed: the task's own proof failed (weights that did not arrive, a trunk that moved).
    """
    task = evaluation.task
    data = task.data_fingerprint(workspace.cache)
    folder = workspace.evaluation(checkpoint, evaluation.protocol, seed)
    folder.mkdir(parents=True, exist_ok=True)
    folders = Folders(folder, workspace.cache)
    started, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    with contextlib.nullcontext() if dist.rank() else alone_in(folder):
        metrics = task.run(checkpoint, folders, seed)
    _require_complete(evaluation.name, task.METRICS, metrics)
    result = Result(
        task=evaluation.name,
        protocol=evaluation.protocol,
        metrics=metrics,
        checkpoint=checkpoint.id,
        checkpoint_name=checkpoint.name,
        origin=plain(checkpoint.origin),
        data=data,
        config=plain(task),
        seed=seed,
        overridden=evaluation.overridden,
        commit=commit(),
        versions=versions() | (task.versions(folders) if isinstance(task, Versioned) else {}),
        device=device_name(),
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 2),
        work=str(folder.relative_to(workspace.root)),
    )
    dist.wait_for_all()  # or one that is late would find this result and not take part
    if dist.rank() == 0:
        results.append(workspace.store, result)
    return result


def plan(evaluation: Evaluation, checkpoint: Checkpoint, workspace: Workspace) -> list[str]:
    """What the evaluation will take, in lines; none where the task cannot tell."""
    task = evaluation.task
    if not isinstance(task, Planned):
        return []
    folder = workspace.evaluation(checkpoint, evaluation.protocol, 0)
    return task.plan(checkpoint, Folders(folder, workspace.cache))


def _require_complete(name: str, declared: Sequence[Metric], metrics: dict[str, float]) -> None:
    missing = [metric.name for metric in declared if metric.name not in metrics]
    if missing:
        raise CheckFailed(f"{name} did not report {', '.join(missing)}; its log is in the run's folder")


def commit() -> str:
    """The commit of the checkout that this package runs from, `-dirty` where tracked files differ; else empty."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def versions() -> dict[str, str]:
    """Installed versions of everything that can change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device_name() -> str:
    """The model of the GPU, or of the CPU architecture with the number of threads."""
    if pick_device().type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
