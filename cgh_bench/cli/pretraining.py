"""Verbs that train."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cgh_bench.cli.options import HERE, DryRun, Settings, Work

verbs = typer.Typer()


@verbs.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A name from `cgh-bench list recipes`.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="[default: WORK/pretrain/RECIPE/seedN]")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, data order and views.")] = 0,
    settings: Settings = None,
    dry_run: DryRun = False,
    work: Work = HERE,
) -> None:
    """Train a recipe; a finished run is reused, an interrupted one goes on where it stopped.

    \b
    Examples:
      cgh-bench pretrain cgh_r18_animals
      cgh-bench pretrain cgh_r18_animals --set epochs=2 --set method.queue_length=1024 -o runs/short
      torchrun --nproc-per-node 8 -m cgh_bench pretrain cgh_r50_in1k_200ep
    """
    from cgh_bench.config import override, plain
    from cgh_bench.evaluate import Workspace
    from pretrain.recipe import find

    chosen = override(find(recipe), [*(settings or []), f"seed={seed}"])
    folder = out or Workspace(work).pretraining(recipe, seed)
    if dry_run:
        print(json.dumps({"recipe": recipe, "out": str(folder), **plain(chosen)}, indent=2))
        return
    from pretrain.train import train

    # With other settings it is not the recipe any more, and must not fill the recipe's row in a table.
    print(train(chosen, f"{recipe} with {', '.join(settings)}" if settings else recipe, folder))
