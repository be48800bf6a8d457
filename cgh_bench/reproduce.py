"""Fill a table: pretrain what its rows name, evaluate what its columns name, skip whatever is finished."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

from cgh_bench.checkpoint import Checkpoint, Origin
from cgh_bench.core.errors import UserError
from cgh_bench.core.progress import duration
from cgh_bench.evaluation import Evaluation, evaluate, find_finished, prepare
from cgh_bench.evaluation import plan as plan_evaluation
from cgh_bench.pretrain import recipe as recipes
from cgh_bench.pretrain.folder import RunFolder
from cgh_bench.pretrain.train import train
from cgh_bench.reading.loading import load
from cgh_bench.report.definition import Definition, RowDefinition
from cgh_bench.site.charts import last_seconds
from cgh_bench.workspace import Workspace


def run(table: Definition, seeds: Iterable[int], workspace: Workspace, folder: Path) -> None:
    """Evaluate every row of `table` that has weights on every task of its columns, for each of `seeds`.

    A row's recipe is trained for each seed, and each of its evaluations uses the same seed, so that the spread over
    seeds includes everything random. A row's checkpoint is a file, evaluated for each seed, or a control, initialised
    for each. Interrupted work resumes where it stopped.

    Args:
        table: what to fill.
        seeds: of pretraining and evaluation.
        workspace: where everything is written.
        folder: the files that rows name as their `checkpoint`: NAME.pth.tar, NAME.safetensors, …

    Raises:
        UserError: a dataset or checkpoint is missing; this is checked before anything is trained.
    """
    evaluations, rows = _work(table, workspace, folder)
    for seed in seeds:
        for row in rows if evaluations else ():
            if row.recipe:
                _say(f"{row.label}, seed {seed}: pretraining {row.recipe}")
                recipe = dataclasses.replace(recipes.find(row.recipe), seed=seed)
                loaded = load(train(recipe, row.recipe, workspace.pretraining(row.recipe, seed), cache=workspace.cache))
            else:
                loaded = _given(row, seed, folder)
            for evaluation in evaluations:
                if find_finished(evaluation, loaded, seed, workspace) is None:
                    _say(f"{row.label}, seed {seed}: {evaluation.name}")
                    evaluate(evaluation, loaded, seed, workspace)


def plan(table: Definition, seeds: Iterable[int], workspace: Workspace, folder: Path) -> Iterator[str]:
    """What `run` would do, in lines: what is finished, what would run, and its time, disk and memory once per row.

    Raises:
        UserError: as `run`.
    """
    evaluations, rows = _work(table, workspace, folder)
    planned: set[tuple[str, str]] = set()
    counts = {True: 0, False: 0}
    for seed in seeds:
        for row in rows if evaluations else ():
            yield f"{row.label}, seed {seed}"
            trained = True
            if row.recipe:
                loaded, trained = _foreseen(row.recipe, seed, workspace)
                counts[trained] += 1
                took = "" if trained else _took(row.recipe, workspace)
                yield f"  pretraining {row.recipe}: {_state(trained)}{took}"
            else:
                loaded = _given(row, seed, folder)
            for evaluation in evaluations:
                done = trained and find_finished(evaluation, loaded, seed, workspace) is not None
                counts[done] += 1
                yield f"  {evaluation.protocol}: {_state(done)}"
                if not done and (row.label, evaluation.name) not in planned:
                    planned.add((row.label, evaluation.name))
                    yield from (f"    {line}" for line in plan_evaluation(evaluation, loaded, workspace))
    yield f"{counts[False]} would run, {counts[True]} finished"


def _work(table: Definition, workspace: Workspace, folder: Path) -> tuple[list[Evaluation], list[RowDefinition]]:
    """The evaluations of the columns and the rows that have weights; whatever they need exists."""
    evaluations = prepare(list(dict.fromkeys(column.task for column in table.columns if column.task)), workspace)
    rows = [row for row in table.rows if row.recipe or row.checkpoint]
    for row in rows:
        if row.checkpoint and not _is_control(row):
            _file(row, folder)
    return evaluations, rows


def _state(done: bool) -> str:
    return "finished" if done else "would run"


def _foreseen(name: str, seed: int, workspace: Workspace) -> tuple[Checkpoint, bool]:
    """The trained checkpoint and True; or one as the training would begin with, and False."""
    trained = RunFolder(workspace.pretraining(name, seed)).weights
    if trained.exists():
        return load(trained), True
    recipe = recipes.find(name)
    weights = recipe.architecture.build().state_dict()
    return Checkpoint(name, recipe.architecture, weights, recipe.preprocessing, Origin("random", seed=seed)), False


def _took(recipe: str, workspace: Workspace) -> str:
    """How long other seeds took."""
    runs = workspace.pretraining(recipe, 0).parent.glob("seed*")
    seconds = [took for took in map(last_seconds, runs) if took]
    return f", about {duration(median(seconds))} (median of {len(seconds)} earlier)" if seconds else ""


def _given(row: RowDefinition, seed: int, folder: Path) -> Checkpoint:
    if _is_control(row):
        return load(f"{row.checkpoint}:{seed}")
    return dataclasses.replace(load(_file(row, folder)), name=row.checkpoint)


def _is_control(row: RowDefinition) -> bool:
    return row.checkpoint.startswith("random:")


def _file(row: RowDefinition, folder: Path) -> Path:
    """The one file in `folder` that holds the row's checkpoint."""
    found = sorted(folder.glob(f"{row.checkpoint}.*"))
    if len(found) != 1:
        which = f"{len(found)} ({', '.join(path.name for path in found)})" if found else "none"
        raise UserError(
            f"row {row.label!r} needs one file {row.checkpoint}.* in {folder}, but found {which}; "
            "name its folder (--checkpoints) or choose other rows (--row)"
        )
    return found[0]


def _say(line: str) -> None:
    """A line of progress, on standard error."""
    print(f"» {line}", file=sys.stderr, flush=True)
