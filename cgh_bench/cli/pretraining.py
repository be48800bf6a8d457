"""Verbs that train."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cgh_bench.cli.options import HERE, DryRun, Settings, Slurm, Work

verbs = typer.Typer()


@verbs.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A name from `cgh-bench list recipes`.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="[default: WORK/pretrain/RECIPE/seedN]")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, data order and views.")] = 0,
    settings: Settings = None,
    knn_epochs: Annotated[int, typer.Option(help="Log a bounded kNN accuracy every N epochs; 0 never.")] = 0,
    snapshot_epochs: Annotated[int, typer.Option(help="Export the trunk every N epochs, for `watch`; 0 never.")] = 0,
    keep: Annotated[int, typer.Option(help="Keep the states of the last N epochs.")] = 1,
    track: Annotated[list[str] | None, typer.Option(help="Log to wandb or mlflow too; may be repeated.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="Of each node, with --slurm: a process each.")] = None,
    slurm: Slurm = "",
    dry_run: DryRun = False,
    work: Work = HERE,
) -> None:
    """Train a recipe; a finished run is reused, an interrupted one goes on where it stopped.

    A recipe (`cgh-bench list recipes`) is a method with its data, views, optimiser and schedule; --dry-run prints all
    its fields and looks for the data, --set changes any. Its folder gets `backbone.safetensors`, the trained trunk, for
    `eval` and `convert`; `log.jsonl` and TensorBoard events (`tensorboard --logdir work/pretrain`); `recipe.json`; and
    `checkpoint.pt`, from which the same command goes on, bit for bit on a CPU. Ctrl-C saves first. An own data set is
    a folder with train/CLASS/*.jpg and val/CLASS/*.jpg: --set data=FOLDER.

    \b
    Examples:
      cgh-bench pretrain cgh_r18_animals
      cgh-bench pretrain cgh_r50_in1k_200ep --dry-run
      cgh-bench pretrain cgh_r18_animals --set epochs=2 --set method.queue_length=1024 -o runs/short
      cgh-bench pretrain cgh_r50_in1k_200ep --set data=photos --set precision=bf16 --knn-epochs 10
      torchrun --nproc-per-node 8 -m cgh_bench pretrain cgh_r50_in1k_200ep
      cgh-bench pretrain cgh_r50_in1k_200ep --gpus 4 --slurm nodes=2,slurm_partition=gpu,timeout_min=1440

    \b
    Then:
      cgh-bench eval animals_knn --ckpt work/pretrain/cgh_r18_animals/seed0/backbone.safetensors

    \b
    Out of memory? --set accumulate=4 computes a step's batch in four parts (batch_size and learning rate stay).
    Several machines without SLURM: see tools/pretrain.sh.
    """
    from cgh_bench.core import dist
    from cgh_bench.core.config import fingerprint, override, plain
    from cgh_bench.core.errors import UserError
    from cgh_bench.core.slurm import queue
    from cgh_bench.data import load
    from cgh_bench.pretrain.recipe import find
    from cgh_bench.pretrain.train import check, train
    from cgh_bench.pretrain.watching import Watching
    from cgh_bench.workspace import Workspace

    if gpus is not None and not slurm:
        raise UserError(
            "--gpus goes with --slurm; leave it out; N processes: torchrun --nproc-per-node N -m cgh_bench …"
        )
    watching = Watching(knn_epochs, snapshot_epochs, keep, tuple(track or ()))
    chosen = override(replace(find(recipe), seed=seed), settings or [])
    folder = out or Workspace(work).pretraining(recipe, chosen.seed)
    if dry_run:
        shown = {"recipe": recipe, "fingerprint": fingerprint(chosen), "out": str(folder), **plain(chosen)}
        print(json.dumps(shown, indent=2))
        check(chosen)
        load(chosen.data, "train")
        return
    if slurm:
        print(f"job {queue(sys.argv[1:], slurm, gpus, work / 'slurm', process_a_gpu=True)}; logs: {work / 'slurm'}")
        return
    # With other settings it is not the recipe any more, and must not fill the recipe's row in a table.
    name = f"{recipe} with {', '.join(settings)}" if settings else recipe
    with dist.process_group():
        weights = train(chosen, name, folder, watching=watching)
        if dist.rank() == 0:
            print(weights)
