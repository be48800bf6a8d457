"""The command that trains."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import UserError


@click.command(cls=options.Command)
@click.argument("recipe")
@click.option("--out", "-o", type=options.Folder(), help="Folder of the run.  [default: WORK/pretrain/RECIPE/seedN]")
@options.count("--seed", 0, "Seed for initialisation, data order and augmentation.", least=0)
@click.option(
    "--backbone", default="", metavar="NAME", help="Train this architecture instead, for example vit_small_patch16_224."
)
@options.settings
@options.count("--knn-epochs", 0, "Log kNN accuracy on a subset every N epochs (0: off).", least=0)
@options.count("--label-free-epochs", 0, "Log RankMe and uniformity on a subset every N epochs (0: off).", least=0)
@options.count("--snapshot-epochs", 0, "Export the backbone every N epochs, for `watch` (0: off).", least=0)
@options.count("--keep", 1, "Keep the states of the last N epochs.")
@click.option("--track", multiple=True, metavar="TRACKER", help="Also log to wandb or mlflow; may be repeated.")
@options.count("--gpus", None, "GPUs per node (one process per GPU); requires --slurm.", least=0)
@options.slurm
@options.dry_run
@options.work
def pretrain(
    recipe: str,
    out: Path | None,
    seed: int,
    backbone: str,
    settings: tuple[str, ...],
    knn_epochs: int,
    label_free_epochs: int,
    snapshot_epochs: int,
    keep: int,
    track: tuple[str, ...],
    gpus: int | None,
    slurm: str,
    dry_run: bool,
    work: Path,
) -> None:
    """Train a backbone; interrupted runs resume.

    RECIPE (`cgh-bench list recipes`) is a method with its data, augmentations, optimiser and schedule. --dry-run prints
    all its fields and checks the data; --set changes any field. To use your own images, pass a folder in any layout:
    --set data=FOLDER.

    The run's folder contains backbone.safetensors (the trained backbone, for `eval` and `convert`), log.jsonl,
    TensorBoard events, recipe.json and checkpoint.pt. Ctrl-C saves the state; run the same command to resume (bit-exact
    on a CPU). A finished run is reused.

    \b
    Examples:
      cgh-bench pretrain cgh_r18_animals
      cgh-bench pretrain cgh_r50_in1k_200ep --dry-run
      cgh-bench pretrain cgh_r18_animals --set epochs=2 --set method.queue_length=1024 -o runs/short
      cgh-bench pretrain cgh_r50_in1k_200ep --set data=photos --set precision=bf16
      cgh-bench pretrain dino_r50_in1k_100ep --backbone vit_small_patch16_224 --set data=photos
      torchrun --nproc-per-node 8 -m cgh_bench pretrain cgh_r50_in1k_200ep
      cgh-bench pretrain cgh_r50_in1k_200ep --gpus 4 --slurm nodes=2,slurm_partition=gpu,timeout_min=1440

    \b
    Then:
      cgh-bench eval animals_knn --ckpt work/pretrain/cgh_r18_animals/seed0/backbone.safetensors

    \b
    Out of memory? --set accumulate=4 uses gradient accumulation (same batch size and learning rate).
    Several machines without SLURM: see tools/pretrain.sh.
    """
    if gpus is not None and not slurm:
        raise UserError("--gpus is only for --slurm; here use: torchrun --nproc-per-node N -m cgh_bench pretrain …")
    from cgh_bench.backbones import named
    from cgh_bench.core import dist
    from cgh_bench.core.config import fingerprint, override, plain
    from cgh_bench.core.slurm import queue
    from cgh_bench.pretrain.batches import steps_per_epoch
    from cgh_bench.pretrain.recipe import find
    from cgh_bench.pretrain.run import planned_bytes
    from cgh_bench.pretrain.train import check, train, training_images
    from cgh_bench.pretrain.watching import Watching
    from cgh_bench.workspace import Workspace

    watching = Watching(knn_epochs, label_free_epochs, snapshot_epochs, keep, track)
    for name in track:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--track {name}: {name} is not installed; pip install {name}, or leave --track out")
    chosen = replace(find(recipe), seed=seed)
    if backbone:
        chosen = replace(chosen, architecture=named(backbone))
    chosen = override(chosen, settings)
    folder = out or Workspace(work).pretraining(recipe, chosen.seed)
    if dry_run:
        shown = {"recipe": recipe, "fingerprint": fingerprint(chosen), "out": str(folder), **plain(chosen)}
        print(json.dumps(shown, indent=2))
        check(chosen)
        if slurm:
            queue(sys.argv[1:], slurm, gpus, None, process_per_gpu=True)
        images = training_images(chosen, labelled=bool(knn_epochs))
        steps_per_epoch(chosen, images)
        if chosen.epochs:
            memory = f"about {planned_bytes(chosen) / 2**30:.1f} GiB of GPU memory for each process"
            print(f"{memory}; less with accumulate={2 * chosen.accumulate}", file=sys.stderr)
        return
    if slurm:
        print(f"job {queue(sys.argv[1:], slurm, gpus, work / 'slurm', process_per_gpu=True)}; logs: {work / 'slurm'}")
        return
    # With other settings it is not the recipe any more, and must not fill the recipe's row in a table.
    changes = (*([f"backbone={backbone}"] if backbone else []), *settings)
    name = f"{recipe} with {', '.join(changes)}" if changes else recipe
    with dist.process_group():
        weights = train(chosen, name, folder, watching=watching, cache=Workspace(work).cache)
        if dist.rank() == 0:
            print(weights)
