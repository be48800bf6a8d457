"""Runs a suite: what is missing is evaluated, what lacks its data or cannot use a checkpoint is left out and named."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from cgh_bench import outcomes
from cgh_bench.core.errors import UserError
from cgh_bench.evaluation import Evaluation, evaluate, find_finished, plan, prepare
from cgh_bench.report.resampling import interval
from cgh_bench.report.suite import Filled, Suite, Value
from cgh_bench.results import Result
from cgh_bench.workspace import Workspace

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint


class Runner:
    """Runs what is missing of a suite in a workspace."""

    def __init__(self, suite: Suite, workspace: Workspace, settings: Sequence[str] = ()) -> None:
        """Find the data of every task.

        Raises:
            UserError: a setting is wrong, or none of the tasks has its data.
        """
        self.filled, self.workspace = Filled(suite), workspace
        self.evaluations: dict[str, Evaluation] = {}
        for name in dict.fromkeys(entry.task for entry in suite.entries):
            try:
                (self.evaluations[name],) = prepare([name], workspace, settings)
            except UserError as error:
                self.filled.absent[name] = str(error)
        if not self.evaluations:
            raise UserError(
                f"data for all tasks of {suite.name} are missing; the first: {next(iter(self.filled.absent.values()))}"
            )

    def accepted(self, checkpoint: "Checkpoint") -> Iterator[Evaluation]:
        """The evaluations that can use this checkpoint; why the others cannot is kept."""
        for name, evaluation in self.evaluations.items():
            try:
                evaluation.task.check_backbone(checkpoint)
            except UserError as error:
                self.filled.refused[name, checkpoint.name] = str(error)
                continue
            yield evaluation

    def plan(self, checkpoint: "Checkpoint", seeds: int) -> Iterator[str]:
        """What `run` would do, one line for each evaluation and what it takes."""
        for evaluation in self.accepted(checkpoint):
            for seed in range(seeds):
                done = find_finished(evaluation, checkpoint, seed, self.workspace)
                yield f"{evaluation.protocol} seed {seed}: {'finished' if done else 'would run'} on {checkpoint.name}"
                if not done and not seed:
                    yield from (f"  {line}" for line in plan(evaluation, checkpoint, self.workspace))

    def run(self, checkpoint: "Checkpoint", seeds: int, show: Callable[[Result, bool], None]) -> None:
        """Evaluate the checkpoint and add its values; `show` is called with each result and whether it was reused."""
        self.filled.checkpoints.append(checkpoint.name)
        for evaluation in self.accepted(checkpoint):
            found = []
            for seed in range(seeds):
                done = find_finished(evaluation, checkpoint, seed, self.workspace)
                found.append(done or evaluate(evaluation, checkpoint, seed, self.workspace))
                show(found[-1], done is not None)
            for entry in self.filled.suite.entries:
                if entry.task == evaluation.name and all(entry.metric in result.metrics for result in found):
                    self.filled.values[entry, checkpoint.name] = self._value(found, entry.metric)

    def _value(self, found: Sequence[Result], metric: str) -> Value:
        mean = statistics.fmean(result.metrics[metric] for result in found)
        folder = self.workspace.root / found[0].work
        kept = outcomes.load(folder) if len(found) == 1 and (folder / outcomes.FILE).is_file() else None
        return Value(mean, interval(kept, metric) if kept else None)
