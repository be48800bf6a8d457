"""Why does a number differ from a published one? Its protocol is varied one axis at a time, then two.

Each value is an ordinary evaluation of the same weights on the same images, marked as overridden, with a protocol id of
its own: features and results are kept, and what is finished is not run again.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

from cgh_bench import outcomes, tasks
from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.core.progress import duration
from cgh_bench.data import DataPair
from cgh_bench.evaluation import Evaluation, evaluate, find_finished, prepare, varied
from cgh_bench.explain import axes
from cgh_bench.explain.axes import Variant
from cgh_bench.explain.target import Target
from cgh_bench.explain.trial import Trial
from cgh_bench.frozen.cost import measured
from cgh_bench.frozen.extraction import Work
from cgh_bench.frozen.features import bank_bytes, bank_key, is_whole
from cgh_bench.outcomes import Outcomes
from cgh_bench.reading.evidence import adjusted
from cgh_bench.reading.loading import load
from cgh_bench.report.resampling import LEAST_IMAGES, percentiles, resampled
from cgh_bench.report.significance import paired_interval
from cgh_bench.results import Result
from cgh_bench.tasks.base import FeatureTask
from cgh_bench.workspace import Workspace

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint

PAIRS = 8
"""How many pairs of values are tried: those whose single changes add up closest to the difference."""


@dataclass(frozen=True, eq=False)
class Study:
    """One stored result that is to be explained, and what it was measured with."""

    result: Result
    metric: str
    evaluation: Evaluation
    """The evaluation of a `FeatureTask` on a `DataPair`."""
    checkpoint: "Checkpoint"
    workspace: Workspace

    @property
    def task(self) -> FeatureTask:
        """The task as it was run."""
        assert isinstance(self.evaluation.task, FeatureTask)
        return self.evaluation.task

    @property
    def data(self) -> DataPair:
        """The images that it was run on."""
        assert isinstance(self.evaluation.data, DataPair)
        return self.evaluation.data

    @cached_property
    def base(self) -> Outcomes:
        """What the stored run answered for each image."""
        return outcomes.of_run(self.result, self.workspace.root)

    def variants(self) -> list[Variant]:
        """Every value of every axis that applies and changes something."""
        seen = {self._identity(Variant("")), ()}
        found = []
        of_task = axes.of_task(self.task, self.data, self.checkpoint)
        for variant in (*of_task, *axes.of_images(), *axes.of_metric(self.result, self.metric)):
            if (identity := self._identity(variant)) not in seen:
                seen.add(identity)
                found.append(variant)
        return found

    def applied(self, variant: Variant) -> "tuple[Evaluation, Checkpoint]":
        """The evaluation and the checkpoint of a variant.

        Raises:
            UserError: a value that the task or the network cannot have.
        """
        evaluation = varied(self.evaluation, variant.of_task) if variant.of_task else self.evaluation
        task: Any = evaluation.task
        cut = task.transform
        if side := cut.crop or (cut.squash and cut.resize):
            self.checkpoint.architecture.require_size(side, side)
        if not variant.of_images:
            return evaluation, self.checkpoint
        settings = variant.of_images
        checkpoint = adjusted(self.checkpoint, settings)
        checkpoint = dataclasses.replace(checkpoint, name=f"{checkpoint.name} with {' '.join(settings)}")
        identity = fingerprint([evaluation.protocol, settings])[:8]
        overridden = (*evaluation.overridden, *settings)
        named = dataclasses.replace(evaluation, protocol=f"{evaluation.name}@{identity}", overridden=overridden)
        return named, checkpoint

    def measured(self, variant: Variant) -> Result:
        """The result of a variant, from the store if it is there."""
        if not (variant.of_task or variant.of_images):
            return self.result
        evaluation, checkpoint = self.applied(variant)
        done = find_finished(evaluation, checkpoint, self.result.seed, self.workspace)
        return done or evaluate(evaluation, checkpoint, self.result.seed, self.workspace)

    def legal(self) -> list[Variant]:
        """The values of the task's own settings that a paper could as well have chosen."""
        return [variant for variant in self.variants() if not (variant.of_images or variant.metric)]

    def run(self, variant: Variant, goal: Target) -> Trial:
        """Evaluate a variant, or take the result that is there."""
        result = self.measured(variant)
        kept = self.base if result is self.result else outcomes.of_run(result, self.workspace.root)
        metric = variant.metric or self.metric
        remains = goal.value - result.metrics[metric]
        change = self._interval(kept, metric)
        before = goal.value - self.result.metrics[self.metric]
        interval = (before - change[1], before - change[0]) if change else None
        return Trial(variant, result.metrics[metric], remains, interval, 0.5 * 10**-goal.digits, before)

    def _interval(self, kept: Outcomes, metric: str) -> tuple[float, float] | None:
        """The interval of the metric of a variant minus that of the stored run, over images."""
        images = len(kept.images)
        if images < LEAST_IMAGES or self.metric not in self.base.measures or metric not in kept.measures:
            return None
        before, after = self.base.each(self.metric), kept.each(metric)
        if before is not None and after is not None:
            _, low, high = paired_interval(after - before)
            return low, high
        return percentiles(
            resampled(images, lambda counts: kept.measure(metric, counts) - self.base.measure(self.metric, counts))
        )

    def pairs(self, trials: Sequence[Trial], goal: Target) -> list[Variant]:
        """The pairs of values of two axes that are worth trying, the most promising first."""
        now = self.result.metrics[self.metric]
        two = [(a, b) for a, b in combinations(trials, 2) if a.variant.axis != b.variant.axis]
        two.sort(key=lambda pair: abs(goal.value - (pair[0].number + pair[1].number - now)))
        seen = {self._identity(trial.variant) for trial in trials}
        found: list[Variant] = []
        for a, b in two:
            pair = a.variant + b.variant
            if len(found) < PAIRS and (identity := self._identity(pair)) and identity not in seen:
                seen.add(identity)
                found.append(pair)
        return found

    def _identity(self, variant: Variant) -> tuple[object, ...]:
        """Equal for variants that do the same; empty where the network or the other values do not allow it."""
        try:
            evaluation, checkpoint = self.applied(variant)
            task: Any = evaluation.task
            parts = checkpoint.architecture.targets(task.feature)
        except UserError:
            return ()
        task = dataclasses.replace(task, feature="+".join(parts))
        return task, checkpoint.id, variant.metric or self.metric

    def plan(self) -> list[str]:
        """What `run` of all single variants takes; nothing is written."""
        variants = self.variants()
        lines = [f"{variant.axis}: {variant.value}" for variant in variants]
        banks: dict[str, tuple[int, int]] = {}
        runs = 0
        for variant in variants:
            if variant.metric:
                continue
            evaluation, checkpoint = self.applied(variant)
            if find_finished(evaluation, checkpoint, self.result.seed, self.workspace):
                continue
            runs += 1
            task: Any = evaluation.task
            target = checkpoint.architecture.targets(task.feature)
            for images, transform in task.sets(evaluation.data):
                key = bank_key(checkpoint.id, images, transform, target, task.precision)
                if not is_whole(self.workspace.cache / "features" / key, len(images)):
                    banks[key] = len(images), checkpoint.architecture.width(target)
        count = f"{len(variants)} variants, {runs} to run with {len(banks)} feature extractions"
        if not banks:
            return [*lines, count]
        parts = (self.checkpoint.architecture.targets(self.task.feature),)
        work = Work(self.checkpoint, self.data.val, self.task.transform, parts, self.task.precision)
        rate = measured(work).images_per_second
        images = sum(n for n, _ in banks.values())
        size = sum(bank_bytes(*each) for each in banks.values()) / 1e9
        time = f"about {duration(images / rate)} at {rate:.0f} images/s"
        each = (f"each run: {line}" for line in self.task.effort(self.checkpoint, self.data))
        return [*lines, f"{count}: {images:,} images, {size:.2f} GB on disk, {time}; then up to {PAIRS} pairs", *each]


def study(result: Result, workspace: Workspace, metric: str = "", name: str = "") -> Study:
    """What is needed to run `result` again, and otherwise.

    Args:
        result: a stored one.
        workspace: that it is stored in.
        metric: which of its numbers; by default the task's main one.
        name: of the checkpoint, where it is no longer where it was.

    Raises:
        UserError: the result's task cannot be varied, its answers were not kept, or checkpoint, data or protocol are
            not those of the result any more.
    """
    if result.imported:
        raise UserError(
            f"{result.task} of {result.checkpoint_name} was measured by another tool; evaluate it here first"
        )
    task = tasks.find(result.task)
    if not isinstance(task, FeatureTask):
        raise UserError(f"explain varies tasks on one frozen feature (kNN, linear, logistic, …), not {result.task}")
    if result.origin.get("source") == "features":
        raise UserError(f"{result.checkpoint_name} has only features; explain needs images and a checkpoint")
    metric = metric or task.METRICS[0].name
    measures = outcomes.of_run(result, workspace.root).measures
    if metric not in measures:
        raise UserError(
            f"the result of {result.task} has no per-image values of {metric!r}; expected one of {', '.join(measures)}"
        )
    checkpoint = _checkpoint(result, workspace, name)
    config = {
        field: result.config[field] for field in ("data", "val_split") if result.config.get(field) and not task.data
    }
    settings = [*result.overridden, *(f"{field}={value}" for field, value in config.items())]
    (evaluation,) = prepare([result.task], workspace, settings)
    evaluation = dataclasses.replace(evaluation, overridden=result.overridden)
    if (evaluation.protocol, evaluation.data.fingerprint) != (result.protocol, result.data):
        what = "protocol" if evaluation.protocol != result.protocol else "data"
        raise UserError(f"the {what} of {result.protocol} has changed since; evaluate again and explain the new result")
    return Study(result, metric, evaluation, checkpoint, workspace)


def _checkpoint(result: Result, workspace: Workspace, name: str) -> "Checkpoint":
    origin = result.origin
    properties = origin.get("properties") or ()
    said = [each["source"].removeprefix("--set ") for each in properties if each["source"].startswith("--set ")]
    if name:
        loaded = load(name, settings=list(dict.fromkeys(said)))
    elif origin.get("recipe"):
        loaded = load(workspace.pretraining(origin["recipe"], origin["seed"]) / "backbone.safetensors")
    elif origin.get("source") == "random" and result.checkpoint_name.startswith("random:"):
        loaded = load(f"random:{result.checkpoint_name.split(':')[1]}:{origin['seed']}", settings=said)
    else:
        where = origin.get("path") or result.checkpoint_name
        loaded = load(where, branch=origin.get("branch") or None, settings=list(dict.fromkeys(said)))
    if loaded.id != result.checkpoint:
        raise UserError(
            f"{loaded.name} is {loaded.id}, but the result is of {result.checkpoint_name}, {result.checkpoint}; name "
            "that checkpoint with --ckpt"
        )
    return dataclasses.replace(loaded, name=result.checkpoint_name)
