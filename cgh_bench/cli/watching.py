"""The verb that evaluates what appears."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from cgh_bench.cli.options import HERE, Work

verbs = typer.Typer()


@verbs.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="A pretraining run, or any folder that checkpoints appear in.")],
    task: Annotated[str, typer.Option(help="Names from `cgh-bench list tasks`, joined by commas.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Between looks.")] = 30.0,
    once: Annotated[bool, typer.Option("--once", help="Evaluate what is there and stop.")] = False,
    work: Work = HERE,
) -> None:
    """Evaluate every checkpoint in a folder as it appears, until the run's `backbone.safetensors` is done, or Ctrl-C.

    \b
    Example, in two terminals:
      cgh-bench pretrain cgh_r18_animals --snapshot-epochs 1
      cgh-bench watch work/pretrain/cgh_r18_animals/seed0 --task animals_knn
    """
    from cgh_bench.core.errors import UserError
    from cgh_bench.evaluate import evaluate, find_finished, prepare
    from cgh_bench.reading.loading import load
    from cgh_bench.report.terminal import show_result
    from cgh_bench.workspace import Workspace

    evaluations = [prepare(name) for name in task.split(",")]
    workspace = Workspace(work)
    for evaluation in evaluations:
        evaluation.task.data_fingerprint(workspace.cache)
    if once and not folder.is_dir():
        raise UserError(f"no folder {folder}; name one that holds checkpoints")
    for path in _appearing(folder, seconds, once):
        loaded = load(path)
        for evaluation in evaluations:
            result = find_finished(evaluation, loaded, 0, workspace)
            show_result(result or evaluate(evaluation, loaded, 0, workspace), reused=result is not None)


def _appearing(folder: Path, seconds: float, once: bool) -> Iterator[Path]:
    """Each canonical checkpoint below `folder` once, oldest first; ours appear whole, by renaming."""
    seen: set[Path] = set()
    last = folder / "backbone.safetensors"
    while True:
        present = [path for path in folder.rglob("*.safetensors") if not path.name.startswith(".")]
        new = sorted((path for path in present if path not in seen), key=lambda path: (path == last, path.name))
        seen.update(new)
        yield from new
        if once or last in seen:
            return
        time.sleep(seconds)
