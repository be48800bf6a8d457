"""Why does a number differ from a published one? Its protocol is varied one axis at a time, then two.

The axes are the data below. Each value is an ordinary evaluation of the same weights on the same images, marked as
overridden, with a protocol id of its own: features and results are kept, and what is finished is not run again.
"""

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

from cgh_bench import outcomes, published, tasks
from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.core.progress import duration
from cgh_bench.data import DataPair
from cgh_bench.evaluation import Evaluation, evaluate, find_finished, prepare, varied
from cgh_bench.frozen.extraction import Work, images_per_second
from cgh_bench.frozen.features import bank_bytes, bank_key, is_whole
from cgh_bench.outcomes import Outcomes
from cgh_bench.reading.evidence import PREPROCESSINGS, adjusted
from cgh_bench.reading.loading import hub_settings, load
from cgh_bench.report.comparison import LEAST_IMAGES, percentiles, resampled
from cgh_bench.report.significance import paired_interval
from cgh_bench.results import Result
from cgh_bench.tasks.base import FeatureTask
from cgh_bench.workspace import Workspace

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint

PAIRS = 8
"""How many pairs of values are tried: those whose single changes add up closest to the difference."""
TASK_AXES = {
    "interpolation": ("transform.interpolation=bilinear", "transform.interpolation=bicubic"),
    "k": tuple(f"k={k}" for k in (1, 5, 10, 20, 50, 100, 200)),
    "temperature": tuple(f"temperature={t}" for t in (0.02, 0.04, 0.05, 0.07, 0.1, 0.2, 100)),
    "held-out share": tuple(f"held_out={share}" for share in (0.1, 0.2)),
}
"""Settings of the task, for tasks with that field. At temperature 100 all votes count alike."""
PREPROCESSING_AXES = {
    "preprocessing": (*(f"preprocessing={name}" for name in PREPROCESSINGS), "std=0.229,0.224,0.255"),
    "channel order": ("channel_order=RGB", "channel_order=BGR"),
}
"""What the checkpoint expects of images. A blue of .255 is a slip of the pen that several repositories share."""
CUTS = ((1.0, 1.0), (8 / 7, 1.0), (8 / 7, 8 / 7), (1 / 0.9, 1.0), (1 / 0.95, 1.0))
"""The short side, and the crop, over the side that the network sees now: 224 and 256/224 are the usual ones."""
SELECTED, BALANCED = "_selected_on_val", "class_balanced"


@dataclass(frozen=True)
class Variant:
    """What is done otherwise."""

    axis: str
    of_task: tuple[str, ...] = ()
    """Settings of the task."""
    of_images: tuple[str, ...] = ()
    """Settings of the checkpoint's preprocessing."""
    metric: str = ""
    """Another number of the same run."""

    @property
    def value(self) -> str:
        """The settings, as `--set` takes them."""
        return " ".join((*self.of_task, *self.of_images, *filter(None, [self.metric])))

    def __add__(self, other: "Variant") -> "Variant":
        return Variant(
            f"{self.axis} and {other.axis}",
            self.of_task + other.of_task,
            self.of_images + other.of_images,
            self.metric or other.metric,
        )


@dataclass(frozen=True)
class Trial:
    """What a variant reached, in the unit of the metric."""

    variant: Variant
    number: float
    remains: float
    """Published minus `number`."""
    interval: tuple[float, float] | None
    """95 % of `remains`, over images, of what the variant changed; None for fewer than 30 images."""
    tolerance: float
    """Half of the published number's last digit."""

    before: float
    """Published minus the stored result."""

    @property
    def closes(self) -> bool:
        """Whether nothing remains to the last published digit, or less than half, and 0 is within the interval."""
        if abs(self.remains) <= self.tolerance + 1e-9:
            return True
        within = self.interval is not None and self.interval[0] <= 0 <= self.interval[1]
        return within and abs(self.remains) < abs(self.before) / 2


@dataclass(frozen=True)
class Target:
    """A published number."""

    value: float
    digits: int
    """Behind the point."""


def target(text: str, metric: str) -> Target:
    """What `text` means: a number, or the start of a line of `published/results.csv`.

    Raises:
        UserError: neither, no such line, or several values.
    """
    try:
        number = float(text)
    except ValueError:
        number = _row(text, metric)
        text = published.printed(number)
    if not 0 <= number <= 100:
        raise UserError(f"--published {text}: expected per cent between 0 and 100")
    return Target(number, len(text.partition(".")[2]))


def _row(text: str, metric: str) -> float:
    fields = [field.strip() for field in next(csv.reader([text]), [])]
    if len(fields) < 2:
        raise UserError(
            f"--published {text!r} is neither a number nor the start of a line of published/results.csv, "
            "PROTOCOL,METHOD[,DETAIL[,EPOCHS]] (`cgh-bench published`)"
        )
    rows = [row for row in published.select(fields[0], fields[1]) if row.metric == metric]
    columns = ("detail", "epochs", "cost", "metric", "value")
    for name, wanted in zip(columns, fields[2:], strict=False):
        rows = [row for row in rows if str(getattr(row, name) or "") == wanted]
    values = sorted({row.value for row in rows})
    if len(values) == 1:
        return values[0]
    if not values:
        raise UserError(
            f"--published {text!r}: no published {metric}; see `cgh-bench published --protocol {fields[0]}`"
        )
    lines = "; ".join(
        dict.fromkeys(f"{','.join(fields[:2])},{r.detail},{r.epochs or ''},{r.cost},{metric},{r.value}" for r in rows)
    )
    raise UserError(f"--published {text!r} names {len(values)} values; name one of: {lines}")


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
        for variant in (*self._of_task(), *self._of_images(), *self._of_metric()):
            if (identity := self._identity(variant)) not in seen:
                seen.add(identity)
                found.append(variant)
        return found

    def _of_task(self) -> Iterator[Variant]:
        task = self.task
        yield from (Variant("cut", settings) for settings in self._cuts())
        yield from (Variant("feature", (f"feature={feature}",)) for feature in _features(self.checkpoint))
        for axis, settings in TASK_AXES.items():
            name = settings[0].partition("=")[0]
            if not hasattr(task, name.partition(".")[0]) or (axis == "interpolation" and task.transform.resize is None):
                continue
            for setting in settings:
                if axis != "k" or int(setting.partition("=")[2]) <= len(self.data.train):
                    yield Variant(axis, (setting,))

    def _cuts(self) -> Iterator[tuple[str, ...]]:
        transform = self.task.transform
        side = transform.crop or transform.resize or min(self.data.val.image(0).shape[1:])
        for resize, crop in CUTS:
            sides = (f"transform.resize={round(side * resize)}", f"transform.crop={round(side * crop)}")
            yield (*sides, "transform.squash=False")
        yield f"transform.resize={side}", f"transform.crop={side}", "transform.squash=True"
        if self.checkpoint.origin.transform:
            yield tuple(hub_settings(self.checkpoint))

    def _of_images(self) -> Iterator[Variant]:
        for axis, settings in PREPROCESSING_AXES.items():
            yield from (Variant(axis, of_images=(setting,)) for setting in settings)

    def _of_metric(self) -> Iterator[Variant]:
        for axis, name in (("selection on val", self.metric + SELECTED), ("mean over classes", BALANCED)):
            if name in self.result.metrics:
                yield Variant(axis, metric=name)

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
        count = f"{len(variants)} variants, {runs} to run on {len(banks)} new sets of features"
        if not banks:
            return [*lines, count]
        parts = (self.checkpoint.architecture.targets(self.task.feature),)
        rate = images_per_second(Work(self.checkpoint, self.data.val, self.task.transform, parts, self.task.precision))
        images = sum(n for n, _ in banks.values())
        size = sum(bank_bytes(*each) for each in banks.values()) / 1e9
        cost = (
            f"{images:,} images, {size:.2f} GB on disk, about {duration(images / rate)} at {rate:.0f} images a second"
        )
        each = (f"each run: {line}" for line in self.task.effort(self.checkpoint, self.data))
        return [*lines, f"{count}: {cost}; then at most {PAIRS} pairs", *each]


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
        raise UserError(
            f"{result.checkpoint_name} is features without images; explain needs the images and a checkpoint"
        )
    metric = metric or task.METRICS[0].name
    measures = outcomes.of_run(result, workspace.root).measures
    if metric not in measures:
        raise UserError(
            f"result of {result.task} has no {metric!r} of each image; expected one of {', '.join(measures)}"
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
        raise UserError(f"the {what} of {result.protocol} has changed since; evaluate again and explain that result")
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


def _features(checkpoint: "Checkpoint") -> Iterator[str]:
    """Class token, mean of patches, both, and the last stages; not every network has each."""
    yield from ("layer4", "head", "cls", "patch_mean", "cls+patch_mean")
    stages = list(checkpoint.backbone(copy=False).stages)
    yield from dict.fromkeys("+".join(stages[-count:]) for count in (1, 2, 4))
    yield from stages[-2:-1]


def verdict(trials: Sequence[Trial], before: float, metric: str) -> str:
    """Which axis or pair closes the difference of `before`, or that none does."""
    closing = sorted((trial for trial in trials if trial.closes), key=lambda trial: abs(trial.remains))
    if not closing:
        nearest = min(trials, key=lambda trial: abs(trial.remains), default=None)
        left = f"; nearest: {_named(nearest)}, which leaves {nearest.remains:+.2f}" if nearest else ""
        return f"No axis and no pair of them closes the {before:+.2f} points of {metric}{left}."
    least = abs(closing[0].remains)
    first = [trial for trial in closing if abs(trial.remains) <= least + 1e-9]
    rest = dict.fromkeys(trial.variant.axis for trial in closing[len(first) :])
    also = f" Other values within their intervals: {', '.join(rest)}." if rest else ""
    named = " or ".join(map(_named, first))
    return f"{named} closes it: {closing[0].remains:+.2f} of {before:+.2f} points of {metric} remain.{also}"


def _named(trial: Trial) -> str:
    return f"{trial.variant.axis} ({trial.variant.value})"
