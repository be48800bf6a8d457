"""Evaluate one checkpoint by one task: find, override, run, stamp, append. No task can forget any of it."""

import contextlib
import datetime
import importlib.metadata
import math
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgh_bench import outcomes, results, tasks
from cgh_bench.core.config import fingerprint, identity, override, plain
from cgh_bench.core.errors import CheckFailed
from cgh_bench.core.files import alone_in
from cgh_bench.data import DataPair, is_known, load_pair
from cgh_bench.foreign.launch import DEFAULT_LAUNCH, Launch
from cgh_bench.results import Result
from cgh_bench.tasks.base import Data, Folders, Metric, Task
from cgh_bench.workspace import Workspace

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint

PACKAGES = (
    "cgh-bench",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "timm",
    "transformers",
    "scikit-learn",
    "scipy",
    "pycocotools",
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
    """A task with its overrides applied, on data that were found and checked, ready to run on any checkpoint."""

    name: str
    task: Task[Any]
    data: Data
    protocol: str
    """See `protocol_id`."""
    overridden: tuple[str, ...] = ()


def protocol_id(name: str, task: Task[Any], own_data: str = "") -> str:
    """Name and fingerprint of the whole configuration: whatever changes a number's meaning changes this.

    Data that are not known by name, and subsets of known ones, enter by their content, the fingerprint `own_data`, so
    that the id is the same wherever a folder lies, on any machine, and never that of the published data.
    """
    config = identity(task)
    if own_data:
        config["data"] = own_data
    return f"{name}@{fingerprint(config)[:8]}"


def prepare(
    names: Sequence[str], workspace: Workspace, settings: Sequence[str] = (), pair: DataPair | None = None
) -> list[Evaluation]:
    """The tasks of these names with each `field=value` of `settings` applied, and their data.

    Naming your own data, where the task allows it, does not override: it makes another protocol (`Task.open_fields`).

    Args:
        names: of tasks.
        workspace: where embedded datasets are made.
        settings: for all the tasks.
        pair: data in memory, instead of what a name finds.

    Raises:
        UserError: unknown task or field (nearest names given), a value of the wrong type, or data that are absent,
            broken or of no use for a task.
    """
    load_pair.cache_clear()  # a folder may have changed since an earlier call
    return [_prepare(name, workspace, settings, pair) for name in names]


def _prepare(name: str, workspace: Workspace, settings: Sequence[str], pair: DataPair | None) -> Evaluation:
    if pair:
        settings = [*settings, f"data={pair.name}"]
    task, overridden = configured(name, settings)
    data = task.from_pair(pair, workspace.datasets) if pair else task.load_data(workspace.datasets)
    task.check(data)
    return Evaluation(name, task, data, protocol_id(name, task, _own_data(task, data, pair)), overridden)


def _own_data(task: Task[Any], data: Data, pair: DataPair | None = None) -> str:
    """See `protocol_id`."""
    by_name = not pair and all(map(is_known, (task.data, *task.others())))
    return "" if by_name and not data.subset else data.fingerprint


def varied(evaluation: Evaluation, settings: Sequence[str]) -> Evaluation:
    """The same on the same named data, overridden by `settings` that are not of the data.

    Raises:
        UserError: unknown field, or a value that it cannot have.
    """
    task = override(evaluation.task, settings)
    task.check(evaluation.data)
    protocol = protocol_id(evaluation.name, task, _own_data(task, evaluation.data))
    return replace(evaluation, task=task, protocol=protocol, overridden=(*evaluation.overridden, *settings))


def configured(name: str, settings: Sequence[str]) -> tuple[Task[Any], tuple[str, ...]]:
    """The task with `settings` applied, and which of them override it."""
    task = tasks.find(name)
    changed = override(task, settings)
    is_open = task.open_fields(changed.data)
    return changed, tuple(setting for setting in settings if setting.partition("=")[0] not in is_open)


def find_finished(evaluation: Evaluation, checkpoint: "Checkpoint", seed: int, workspace: Workspace) -> Result | None:
    """The latest result of exactly this evaluation on exactly these data, if there is one."""
    records, _ = results.read(workspace.store)
    wanted = (evaluation.protocol, checkpoint.id, seed)
    finished = [record for record in records if (record.protocol, record.checkpoint, record.seed) == wanted]
    same = [record for record in finished if record.data == evaluation.data.fingerprint]  # which may write the data
    return same[-1] if same else None


def evaluate(
    evaluation: Evaluation,
    checkpoint: "Checkpoint",
    seed: int,
    workspace: Workspace,
    launch: Launch = DEFAULT_LAUNCH,
    store: bool = True,
) -> Result:
    """Run the evaluation and append its result to the workspace's store.

    Args:
        evaluation: what to run.
        checkpoint: on what.
        seed: of the evaluation.
        workspace: where everything is written.
        launch: GPUs and images at a time, for a task that runs in a framework.
        store: without it, nothing is appended.

    Raises:
        UserError: an image cannot be read, the same evaluation is running elsewhere, or the task cannot use this
            checkpoint.
        CheckFailed: the task's own proof failed (weights that did not arrive, a backbone that changed).
    """
    from cgh_bench.core import dist
    from cgh_bench.core.device import arithmetic, follow_environment, pick_device

    task = evaluation.task
    follow_environment()
    folder = workspace.evaluation(checkpoint, evaluation.protocol, seed)
    folder.mkdir(parents=True, exist_ok=True)
    folders = Folders(folder, workspace.cache, launch)
    started, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    one_at_a_time = contextlib.nullcontext() if dist.rank() else alone_in(folder)
    with one_at_a_time, arithmetic("fp32", pick_device()):  # a task's own precision is that of its backbone
        metrics = task.run(checkpoint, evaluation.data, folders, seed)
    _require_complete(evaluation.name, task.METRICS, metrics)
    seconds = round(time.monotonic() - clock, 2)
    if dist.rank() == 0:
        metrics |= _group_metrics(evaluation.name, metrics, folder)
    result = Result(
        task=evaluation.name,
        protocol=evaluation.protocol,
        metrics=metrics,
        checkpoint=checkpoint.id,
        checkpoint_name=checkpoint.name,
        origin={**plain(checkpoint.origin), **_network(task, checkpoint, evaluation.data)},
        data=evaluation.data.fingerprint,
        subset=evaluation.data.subset or str(checkpoint.origin.subset),
        config=plain(task),
        seed=seed,
        overridden=evaluation.overridden,
        commit=commit(),
        versions={**versions(), **task.versions(folders)},
        device=device_name(),
        started=started.isoformat(timespec="seconds"),
        seconds=seconds,
        work=str(folder.relative_to(workspace.root)),
    )
    dist.wait_for_all()  # or one that is late would find this result and not take part
    if store and dist.rank() == 0:
        results.append(workspace.store, result)
    return result


def _network(task: Task[Any], checkpoint: "Checkpoint", data: Data) -> dict[str, Any]:
    """What a result says of the network itself."""
    from cgh_bench.core import dist

    parameters = sum(each.numel() for each in checkpoint.architecture.skeleton.parameters())
    cost = task.cost(checkpoint, data) if dist.rank() == 0 else {}
    return {"architecture": checkpoint.architecture.name, "parameters": parameters, **({"cost": cost} if cost else {})}


def plan(
    evaluation: Evaluation, checkpoint: "Checkpoint", workspace: Workspace, launch: Launch = DEFAULT_LAUNCH
) -> list[str]:
    """What the evaluation will take, in lines; none where the task cannot tell."""
    folder = workspace.evaluation(checkpoint, evaluation.protocol, 0)
    return evaluation.task.plan(checkpoint, evaluation.data, Folders(folder, workspace.cache, launch))


def _require_complete(name: str, declared: Sequence[Metric], metrics: dict[str, float]) -> None:
    missing = [metric.name for metric in declared if metric.always and metric.name not in metrics]
    if missing:
        raise CheckFailed(f"{name} did not report {', '.join(missing)}; its log is in the run's folder")


def _group_metrics(name: str, metrics: dict[str, float], folder: Path) -> dict[str, float]:
    """The metrics of groups, computed from the run's per-image predictions, if it has kept any.

    Raises:
        CheckFailed: those predictions do not give one of the `metrics` that the task reports.
    """
    if not (folder / outcomes.FILE).exists():
        return {}
    kept = outcomes.load(folder)
    given = kept.metrics()
    for metric, value in given.items():
        if metric in metrics and not math.isclose(metrics[metric], value, rel_tol=1e-6, abs_tol=1e-6):
            raise CheckFailed(
                f"{name} reports {metric} {metrics[metric]:.4f}, but its per-image predictions give {value:.4f} "
                f"(in {folder}); this is a bug, please report it"
            )
    return {metric: value for metric, value in given.items() if kept.measures[metric].startswith("group")}


@cache
def commit() -> str:
    """The commit of the checkout that this package runs from, `-dirty` where tracked files differ; else empty.

    Asked once, as `versions` is: a process runs the code that it has loaded, whatever is checked out later.
    """
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def versions() -> Mapping[str, str]:
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
    import torch

    from cgh_bench.core.device import pick_device

    if pick_device().type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
