"""Fill a table: pretrain what its rows name, evaluate what its columns name, skip whatever is finished."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.core.progress import duration
from cgh_bench.evaluate import Evaluation, evaluate, find_finished, prepare
from cgh_bench.evaluate import plan as plan_evaluation
from cgh_bench.reading.loading import load
from cgh_bench.report.definition import Definition, RowDefinition
from cgh_bench.site.curves import last_seconds
from cgh_bench.workspace import Workspace

Pretrain = Callable[[str, int, Path], Path]
"""(recipe, seed, folder) to the file of the canonical checkpoint, at once where that run is finished."""
Foresee = Callable[[str, int, Path], tuple[Checkpoint, bool]]
"""(recipe, seed, folder) to the checkpoint and whether it is trained; if not, it is as the training begins."""


@dataclass(frozen=True)
class Weights:
    """Where the weights of rows come from."""

    pretrain: Pretrain
    folder: Path
    """Of the files that rows name as their `checkpoint`: NAME.pth.tar, NAME.safetensors, …"""


def run(table: Definition, seeds: Iterable[int], workspace: Workspace, weights: Weights) -> None:
    """Evaluate every row of `table` that has weights under every task of its columns, for each of `seeds`.

    A row's recipe is trained anew for each seed, and each of its evaluations uses the same seed, so that the spread
    over seeds holds all there is of it. A row's checkpoint is a file, evaluated once for each seed, or a control,
    initialised anew for each. Interrupted work goes on where it stopped.

    Raises:
        UserError: some data set or checkpoint is absent: found out before anything is trained.
    """
    evaluations, rows = _work(table, workspace, weights.folder)
    for seed in seeds:
        for row in rows if evaluations else ():
            loaded = _load(row, seed, workspace, weights)
            for evaluation in evaluations:
                if find_finished(evaluation, loaded, seed, workspace) is None:
                    say(f"{row.label}, seed {seed}: {evaluation.name}")
                    evaluate(evaluation, loaded, seed, workspace)


def plan(
    table: Definition, seeds: Iterable[int], workspace: Workspace, foresee: Foresee, folder: Path
) -> Iterator[str]:
    """What `run` would do, in lines: what is there, what would run, its time, disk and memory once for each row.

    Raises:
        UserError: as `run`.
    """
    evaluations, rows = _work(table, workspace, folder)
    told: set[tuple[str, str]] = set()
    counts = {"finished": 0, "would run": 0}
    for seed in seeds:
        for row in rows if evaluations else ():
            yield f"{row.label}, seed {seed}"
            trained = True
            if row.recipe:
                loaded, trained = foresee(row.recipe, seed, workspace.pretraining(row.recipe, seed))
                counts[_state(trained)] += 1
                yield f"  pretraining {row.recipe}: {_state(trained)}" + (
                    "" if trained else _took(row.recipe, workspace)
                )
            else:
                loaded = _given(row, seed, folder)
            for evaluation in evaluations:
                done = trained and find_finished(evaluation, loaded, seed, workspace) is not None
                counts[_state(done)] += 1
                yield f"  {evaluation.protocol}: {_state(done)}"
                if not done and (row.label, evaluation.name) not in told:
                    told.add((row.label, evaluation.name))
                    yield from (f"    {line}" for line in plan_evaluation(evaluation, loaded, workspace))
    yield ", ".join(f"{count} {state}" for state, count in counts.items())


def _work(table: Definition, workspace: Workspace, folder: Path) -> tuple[list[Evaluation], list[RowDefinition]]:
    """The evaluations of the columns, and the rows that have weights; everything they need is there."""
    evaluations = [prepare(name) for name in dict.fromkeys(column.task for column in table.columns if column.task)]
    rows = [row for row in table.rows if row.recipe or row.checkpoint]
    for evaluation in evaluations:
        evaluation.task.data_fingerprint(workspace.cache)
    for row in rows:
        if row.checkpoint and not _is_control(row):
            _file(row, folder)
    return evaluations, rows


def _state(done: bool) -> str:
    return "finished" if done else "would run"


def _took(recipe: str, workspace: Workspace) -> str:
    """How long other seeds took."""
    runs = workspace.pretraining(recipe, 0).parent.glob("seed*")
    seconds = [took for took in map(last_seconds, runs) if took]
    return f", about {duration(median(seconds))}, as before (runs: {len(seconds)})" if seconds else ""


def _load(row: RowDefinition, seed: int, workspace: Workspace, weights: Weights) -> Checkpoint:
    if row.recipe:
        say(f"{row.label}, seed {seed}: pretraining {row.recipe}")
        return load(weights.pretrain(row.recipe, seed, workspace.pretraining(row.recipe, seed)))
    return _given(row, seed, weights.folder)


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
        which = f"{len(found)} files ({', '.join(path.name for path in found)})" if found else "no file"
        raise UserError(
            f"row {row.label!r} names the checkpoint {row.checkpoint}, of which there is {which} in {folder}; put one "
            "there, name another folder (--checkpoints), or choose rows (--row)"
        )
    return found[0]


def say(line: str) -> None:
    """A line of progress, on standard error."""
    print(f"» {line}", file=sys.stderr, flush=True)
