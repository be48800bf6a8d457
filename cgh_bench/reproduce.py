"""Fill a table: pretrain what its rows name, evaluate what its columns name, skip whatever is finished."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from cgh_bench import checkpoint
from cgh_bench.evaluate import Workspace, evaluate, find_finished, prepare
from cgh_bench.report.definition import Definition

Pretrain = Callable[[str, int, Path], Path]
"""(recipe, seed, folder) to the file of the canonical checkpoint, at once where that run is finished."""


def run(table: Definition, seeds: Iterable[int], workspace: Workspace, pretrain: Pretrain) -> None:
    """Evaluate every row of `table` under every task of its columns, for each of `seeds`.

    A row's recipe is trained anew for each seed, and each of its evaluations uses the same seed, so that the spread
    over seeds holds all there is of it. Interrupted work goes on where it stopped.

    Raises:
        UserError: some data set is absent: found out before anything is trained.
    """
    evaluations = [prepare(name) for name in dict.fromkeys(column.task for column in table.columns if column.task)]
    trained_rows = [row for row in table.rows if row.recipe]
    for evaluation in evaluations:
        evaluation.task.data_fingerprint(workspace.cache)
    for seed in seeds:
        for row in trained_rows:
            say(f"{row.label}, seed {seed}: pretraining {row.recipe}")
            trained = checkpoint.load(pretrain(row.recipe, seed, workspace.pretraining(row.recipe, seed)))
            for evaluation in evaluations:
                result = find_finished(evaluation, trained, seed, workspace)
                if result is None:
                    say(f"{row.label}, seed {seed}: {evaluation.name}")
                    result = evaluate(evaluation, trained, seed, workspace)


def say(line: str) -> None:
    """A line of progress, on standard error."""
    print(f"» {line}", file=sys.stderr, flush=True)
