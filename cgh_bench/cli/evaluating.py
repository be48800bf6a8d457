"""Verbs that evaluate."""

import itertools
import sys
from typing import Annotated

import typer

from cgh_bench.cli.options import HERE, Branch, DryRun, Seeds, Settings, Slurm, Source, Trust, Work

verbs = typer.Typer()


@verbs.command("eval")
def eval_(
    task: Annotated[str, typer.Argument(help="Names from `cgh-bench list tasks`, joined by commas.")],
    ckpt: Annotated[str, typer.Option("--ckpt", help="A checkpoint of any origin, or random:ARCH[:SEED].")],
    data: Annotated[str, typer.Option(help="The data set, for tasks without one: a name or a folder.")] = "",
    source: Source = None,
    branch: Branch = None,
    trust_pickle: Trust = False,
    framework: Annotated[
        str, typer.Option(help="Of detection and segmentation: mmdet and mmseg where none is named, or detectron2.")
    ] = "",
    gpus: Annotated[
        int | None, typer.Option(min=0, envvar="CGH_GPUS", help="Of detection and segmentation; all that are visible.")
    ] = None,
    images_at_a_time: Annotated[
        int | None,
        typer.Option(min=1, envvar="CGH_IMAGES_AT_A_TIME", help="On each GPU; the gradients of a step's batch add up."),
    ] = None,
    slurm: Slurm = "",
    seeds: Seeds = 1,
    settings: Settings = None,
    dry_run: DryRun = False,
    work: Work = HERE,
) -> None:
    """Evaluate a checkpoint and append the results to WORK/results.jsonl; finished evaluations are reused.

    \b
    Examples:
      cgh-bench eval animals_knn,animals_linear --ckpt work/pretrain/cgh_r18_animals/seed0/backbone.safetensors
      cgh-bench eval knn,linear --ckpt moco_v2_800ep.pth.tar --data ~/photos
      torchrun --nproc-per-node=8 -m cgh_bench eval imagenet_knn_grid --ckpt moco_v2_800ep.pth.tar
      cgh-bench eval animals_det --ckpt random:resnet18 --seeds 3
      cgh-bench eval coco_det --framework detectron2 --ckpt moco_v2_800ep.pth.tar
      cgh-bench eval coco_det --ckpt moco_v2_800ep.pth.tar --gpus 8 --slurm slurm_partition=gpu,timeout_min=1440
    """
    from cgh_bench.core import dist
    from cgh_bench.core.slurm import queue
    from cgh_bench.evaluate import evaluate, find_finished, plan, prepare
    from cgh_bench.foreign import launch
    from cgh_bench.reading.loading import load
    from cgh_bench.report.terminal import show_result
    from cgh_bench.workspace import Workspace

    launch.choose(gpus, images_at_a_time)
    chosen = {"data": data, "framework": framework}
    settings = [*(settings or []), *(f"{field}={value}" for field, value in chosen.items() if value)]
    evaluations = [prepare(name, settings) for name in task.split(",")]
    workspace = Workspace(work)
    for evaluation in evaluations:
        evaluation.task.data_fingerprint(workspace.cache)
    loaded = load(ckpt, source, branch, trust_pickle)
    if slurm and not dry_run:
        print(f"job {queue(sys.argv[1:], slurm, gpus, work / 'slurm')}; its log is in {work / 'slurm'}")
        return
    with dist.process_group():
        first = dist.rank() == 0
        for evaluation, seed in itertools.product(evaluations, range(seeds)):
            result = find_finished(evaluation, loaded, seed, workspace)
            planned = plan(evaluation, loaded, workspace) if first and not result else []
            if dry_run:
                print(f"{evaluation.protocol} seed {seed}: {'finished' if result else 'would run'} on {loaded.name}")
            for line in planned:
                print(f"  {line}", file=sys.stdout if dry_run else sys.stderr)
            if dry_run:
                continue
            done = result or evaluate(evaluation, loaded, seed, workspace)
            if first:
                show_result(done, reused=result is not None)
