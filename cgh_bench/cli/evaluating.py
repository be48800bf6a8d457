"""Commands that evaluate checkpoints."""

import contextlib
import fnmatch
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import UserError, printable, unknown

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair
    from cgh_bench.evaluation import Evaluation
    from cgh_bench.results import Result

WEIGHTS = (".safetensors", ".pth", ".pth.tar")
"""How the names of checkpoints end that `watch` looks for."""
HUB = "transform=hub"
"""The setting that cuts images as the checkpoint's hub does."""
OTHER_FRAMEWORK = "_detectron2"
"""How the names of tasks end that --framework chooses; `animals_*` does not mean them."""


@click.command("eval", cls=options.Command, options_metavar="--ckpt CKPT [OPTIONS]")
@click.argument("task", metavar="TASK[,TASK…]")
@click.option("--ckpt", multiple=True, metavar="CKPT", help="Checkpoint or pattern; may be repeated.")
@options.text("--features", metavar="TRAIN,VAL", help="Two feature files to use instead of --ckpt and --data.")
@options.data
@click.option(
    "--val-split", type=click.FloatRange(0, 1, True, True), metavar="SHARE", help="Hold out this share of train/."
)
@options.choices
@options.text("--framework", help="Detection and segmentation framework: mmdet/mmseg (default) or detectron2.")
@options.count("--gpus", None, "GPUs for detection and segmentation (default: all).", least=0, envvar="CGH_GPUS")
@options.count(
    "--images-at-a-time", None, "Micro-batch per GPU (gradient accumulation).", envvar="CGH_IMAGES_AT_A_TIME"
)
@options.limits
@options.slurm
@options.seeds
@options.settings
@options.flag("--again", help="Run finished evaluations again; the newest result counts.")
@options.dry_run
@options.flag("--quiet", "-q", help="Show no progress.")
@options.work
def eval_(
    task: str,
    ckpt: tuple[str, ...],
    features: str,
    data: str,
    val_split: float | None,
    reference: Path | None,
    framework: str,
    gpus: int | None,
    images_at_a_time: int | None,
    slurm: str,
    seeds: int,
    settings: tuple[str, ...],
    again: bool,
    dry_run: bool,
    quiet: bool,
    work: Path,
    **choices: Any,
) -> None:
    """Evaluate checkpoints; finished evaluations are reused.

    TASK is a name from `cgh-bench list tasks`, or a pattern such as 'animals_*'. CKPT is a checkpoint of any origin, a
    Hugging Face folder, a file pattern, or a name (`cgh-bench list checkpoints`): timm/convnext_tiny.fb_in22k,
    hf:facebook/dinov2-small, random:resnet18, …. Every task runs on every checkpoint; the results are appended to
    WORK/results.jsonl.

    --set changes a field of the task, or a property that the checkpoint's tensors do not determine (stem.padding,
    heads, mean, …; see `cgh-bench inspect`). --set transform=hub resizes and crops images as the hub that published the
    weights does. Detection and segmentation also accept --data: a folder in COCO, VOC or YOLO format, a folder of
    images and masks, or images=DIR,train=A.json,val=B.json.

    \b
    Examples:
      cgh-bench eval knn,linear --ckpt moco_v2_800ep.pth.tar --data photos
      cgh-bench eval 'animals_*' --ckpt 'runs/*/backbone.safetensors' --ckpt random:resnet18
      cgh-bench eval knn,linear --ckpt timm/convnext_tiny.fb_in22k --data photos
      cgh-bench eval knn,linear --features train.npz,val.npz
      cgh-bench eval animals_det --ckpt random:resnet18 --seeds 3
      cgh-bench eval coco_det --framework detectron2 --ckpt moco_v2_800ep.pth.tar
      cgh-bench eval coco_det --ckpt moco_v2_800ep.pth.tar --data my_coco --set iterations=5000
      cgh-bench eval coco_det --ckpt moco_v2_800ep.pth.tar --gpus 8 --slurm slurm_partition=gpu,timeout_min=1440
      cgh-bench eval coco_vitdet --ckpt vit.safetensors --gpus 8 --slurm nodes=4,slurm_partition=gpu,timeout_min=1440
      torchrun --nproc-per-node 8 -m cgh_bench eval imagenet_knn_grid --ckpt moco_v2_800ep.pth.tar
    """
    tasks, names = _tasks(task), _names(ckpt, features)
    from cgh_bench.core import dist
    from cgh_bench.core.progress import showing
    from cgh_bench.core.slurm import processes, queue
    from cgh_bench.evaluation import configured, evaluate, find_finished, plan, prepare
    from cgh_bench.foreign.launch import Launch
    from cgh_bench.reading.evidence import split_settings
    from cgh_bench.reading.loading import load
    from cgh_bench.report.formats import show_result
    from cgh_bench.tasks.transfer import in_framework
    from cgh_bench.workspace import Workspace

    if framework:
        tasks = [in_framework(name, framework) for name in tasks]
    of_weights, of_task = split_settings(settings)
    given = [*of_task, *([f"data={data}"] if data else []), *([f"val_split={val_split}"] if val_split else [])]
    launch = Launch(processes(slurm, gpus) if slurm else gpus, images_at_a_time, elsewhere=bool(slurm))
    workspace = click.get_current_context().with_resource(Workspace(work).planning(dry_run))
    from_files = _feature_files(features) if features else None

    def read(name: str) -> "Checkpoint":
        if from_files:
            return from_files[0]
        return load(name, reference, settings=of_weights, **choices)

    def prepared(checkpoint: "Checkpoint") -> "list[Evaluation]":
        settings = _with_hub(given, checkpoint)
        for name in tasks:
            configured(name, settings)[0].check_backbone(checkpoint)
        return prepare(tasks, workspace, settings, from_files[1] if from_files else None)

    loaded = read(names[0])
    evaluations = prepared(loaded)
    if slurm:
        for evaluation in evaluations:
            plan(evaluation, loaded, workspace, launch)  # refuses here what the job would refuse
        job = queue(sys.argv[1:], slurm, gpus, None if dry_run else work / "slurm")
        if not dry_run:
            print(f"job {job}; logs: {work / 'slurm'}")
            return
    with showing(not quiet), dist.process_group():
        first = dist.rank() == 0
        for name in names:
            if name != names[0]:
                loaded = read(name)
                evaluations = prepared(loaded) if HUB in given else evaluations
            if first:
                _warn_if_untrained(loaded)
            for evaluation, seed in itertools.product(evaluations, range(seeds)):
                result = None if again else find_finished(evaluation, loaded, seed, workspace)
                planned = plan(evaluation, loaded, workspace, launch) if first and not result else []
                if dry_run:
                    state = "finished" if result else "would run"
                    print(f"{evaluation.protocol} seed {seed}: {state} on {printable(loaded.name)}")
                for line in planned if dry_run or not quiet else ():
                    print(f"  {printable(line)}", file=sys.stdout if dry_run else sys.stderr)
                if dry_run:
                    continue
                done = result or evaluate(evaluation, loaded, seed, workspace, launch)
                if first:
                    show_result(done, reused=result is not None)


@click.command(cls=options.Command)
@click.argument("folder", type=options.PATH)
@click.option("--task", required=True, metavar="TASK[,TASK…]", help="Names or patterns from `cgh-bench list tasks`.")
@options.data
@click.option("--seconds", type=click.FloatRange(min=0.1), default=30, metavar="N", help="Polling interval.")
@options.flag("--once", help="Evaluate existing checkpoints once and exit.")
@options.work
def watch(folder: Path, task: str, data: str, seconds: float, once: bool, work: Path) -> None:
    """Evaluate checkpoints as they appear in a folder.

    FOLDER is a pretraining run, or any folder to monitor for new checkpoints. Stops when the run has written its
    backbone.safetensors, or on Ctrl-C.

    \b
    Example, in two terminals:
      cgh-bench pretrain cgh_r18_animals --snapshot-epochs 1
      cgh-bench watch work/pretrain/cgh_r18_animals/seed0 --task animals_knn
    """
    if not folder.is_dir():
        raise UserError(f"folder {folder} not found; expected a folder with checkpoints, such as a pretraining run's")
    tasks = _tasks(task)
    from cgh_bench.evaluation import evaluate, find_finished, prepare
    from cgh_bench.reading.loading import load
    from cgh_bench.report.formats import show_result
    from cgh_bench.workspace import Workspace

    workspace = Workspace(work)
    evaluations = prepare(tasks, workspace, [f"data={data}"] if data else [])
    for path in _appearing(folder, seconds, once):
        try:
            loaded = load(path)
        except UserError as error:  # perhaps half written
            print(f"skipped for now: {printable(str(error))}", file=sys.stderr)
            continue
        for evaluation in evaluations:
            result = find_finished(evaluation, loaded, 0, workspace)
            show_result(result or evaluate(evaluation, loaded, 0, workspace), reused=result is not None)


@click.command(cls=options.Command, options_metavar="--ckpt CKPT [OPTIONS]")
@click.argument("suite")
@click.option("--ckpt", multiple=True, required=True, metavar="CKPT", help="Checkpoint or pattern; may be repeated.")
@options.arch
@options.limits
@options.seeds
@click.option("--format", default="terminal", metavar="FORMAT", help="terminal, md or csv.")
@options.dry_run
@options.flag("--quiet", "-q", help="Show no progress.")
@options.work
def suite(
    suite: str,
    ckpt: tuple[str, ...],
    arch: str | None,
    seeds: int,
    format: str,
    dry_run: bool,
    quiet: bool,
    work: Path,
) -> None:
    """Evaluate checkpoints with many tasks, as one table.

    SUITE is a name from `cgh-bench list suites`, or a .toml file. Finished evaluations are reused; tasks whose data are
    missing are skipped and listed at the end. Intervals are over images, for these weights.

    \b
    Examples:
      cgh-bench suite embedded --ckpt random:resnet18
      cgh-bench suite frozen --ckpt timm/convnext_tiny.fb_in22k --ckpt moco_v2_800ep.pth.tar --dry-run
      cgh-bench suite vtab --ckpt dinov2_small.pth --format md
    """
    from cgh_bench.report import suite as tables

    if format not in tables.FORMATS:
        raise unknown("table format", format, tables.FORMATS)
    chosen, names = tables.load(suite), options.checkpoints(ckpt)
    from rich.console import Console

    from cgh_bench.core import dist
    from cgh_bench.core.progress import showing
    from cgh_bench.reading.loading import load
    from cgh_bench.report.formats import show_result
    from cgh_bench.suite import Runner
    from cgh_bench.workspace import Workspace

    log = Console(stderr=True, highlight=False, quiet=quiet)

    def show(result: "Result", reused: bool) -> None:
        show_result(result, reused=reused, console=log)

    runner = Runner(chosen, click.get_current_context().with_resource(Workspace(work).planning(dry_run)))
    with showing(not quiet), dist.process_group():
        for name in names:
            checkpoint = load(name, arch=arch)
            if dry_run:
                for line in runner.plan(checkpoint, seeds):
                    print(printable(line))
            else:
                runner.run(checkpoint, seeds, show)
    if dry_run:
        print("\n".join(map(printable, tables.notes(runner.filled))))
    else:
        print(tables.FORMATS[format](runner.filled), end="")


def _appearing(folder: Path, seconds: float, once: bool) -> Iterator[Path]:
    """Each checkpoint below `folder`, oldest first, and again when its file has changed."""
    seen: dict[Path, tuple[int, int]] = {}
    last = folder / "backbone.safetensors"
    while True:
        states = {}
        for path in folder.rglob("*"):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)  # not yet whole
            if path.name.endswith(WEIGHTS) and not hidden:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found = path.stat()
                    states[path] = (found.st_mtime_ns, found.st_size)
        new = [path for path, state in states.items() if seen.get(path) != state]
        for path in sorted(new, key=lambda path: (path == last, states[path])):
            seen[path] = states[path]
            yield path
        if once or last in seen:
            return
        time.sleep(seconds)


def _tasks(text: str) -> list[str]:
    """The names of the tasks, patterns expanded, each once.

    Raises:
        UserError: a name is unknown, or a pattern matches nothing.
    """
    from cgh_bench import tasks
    from cgh_bench.core.registry import registered

    names: list[str] = []
    for part in text.split(","):
        if not set("*?[") & set(part):
            tasks.find(part)
            names.append(part)
            continue
        known = [name for name in registered("cgh_bench.tasks", "TASKS") if not name.endswith(OTHER_FRAMEWORK)]
        if not (matching := fnmatch.filter(known, part)):
            raise UserError(f"no task matches {part!r}; see `cgh-bench list tasks`")
        names += matching
    return list(dict.fromkeys(names))


def _names(ckpt: tuple[str, ...], features: str) -> list[str]:
    """The checkpoints, or the files of features.

    Raises:
        UserError: neither or both are given, or a pattern matches nothing.
    """
    if bool(ckpt) == bool(features):
        raise UserError("eval needs either --ckpt CKPT or --features TRAIN,VAL")
    return options.checkpoints(ckpt) or [features]


def _feature_files(features: str) -> "tuple[Checkpoint, DataPair]":
    from cgh_bench.frozen.given import from_files

    paths = features.split(",")
    if len(paths) != 2:
        raise UserError(f"--features {features}: expected two files, TRAIN,VAL")
    return from_files(*map(Path, paths))


def _with_hub(settings: list[str], checkpoint: "Checkpoint") -> list[str]:
    """`settings` with the numbers that `transform=hub` stands for."""
    if HUB not in settings:
        return settings
    from cgh_bench.reading.loading import hub_settings

    return [*(setting for setting in settings if setting != HUB), *hub_settings(checkpoint)]


def _warn_if_untrained(checkpoint: "Checkpoint") -> None:
    """Warn as `inspect` would: results of untrained weights are easily mistaken for a backbone's."""
    from cgh_bench.reading.health import checks

    if checkpoint.origin.source in ("random", "features"):
        return
    for check in checks(checkpoint.weights):
        if check["verdict"] == "bad":
            print(f"warning: {printable(checkpoint.name)}: {check['remark']}", file=sys.stderr)
