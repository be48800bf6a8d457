"""Linear SVMs on frozen features, one a class, from all train images and from a few of each.

Source: Goyal et al., Scaling and Benchmarking Self-Supervised Visual Representation Learning, ICCV 2019
(https://arxiv.org/abs/1905.01235, 6.1 and 6.2), as in facebookresearch/vissl `vissl/utils/svm_utils` and
`extra_scripts/create_voc07_low_shot_samples.py`: features of unit length, squared hinge loss, positives weighted
twice; from all images, costs chosen per class by threefold cross-validation; k-shot: k positives of each class and
(C - 1) k negatives. There the k-shot cost is the best on test; here it is the best on train images that were not drawn.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.core.progress import duration, progress, seconds_of
from cgh_bench.data.transform import AS_IS, TRANSFER, EvalTransform
from cgh_bench.tasks.base import FeatureTask, Folders, Metric

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair, ImageSet

FOLDS = 3
POSITIVE_WEIGHT = 2
MOST_ITERATIONS = 2000
ROWS_TIMED = 256

Floats = NDArray[np.float64]
Marks = NDArray[np.int64]
"""(N, C): 1 shown, 0 not shown, -1 not counted."""


@dataclass(frozen=True)
class Svm(FeatureTask):
    """Score each class of each val image by a linear SVM; mean average precision over classes."""

    METRICS: ClassVar = (Metric("mAP"), Metric("mAP_selected_on_val"))

    data: str = "voc07"
    transform: EvalTransform = TRANSFER
    costs: tuple[float, ...] = (0.01, 0.1, *(0.5**n for n in range(4, 20)))
    shots: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 96)
    """Every k whose mean over `repeats` is reported as `mAP_k1`, …, beside `mAP_k1_selected_on_val`."""
    shot_costs: tuple[float, ...] = (1.0, 10.0, 100.0, *(0.5**n for n in range(4, 20)))
    repeats: int = 5

    def __post_init__(self) -> None:
        if min(self.costs + self.shot_costs, default=0) <= 0 or min((*self.shots, self.repeats)) < 1:
            raise UserError(f"costs {self.costs} must be above 0, shots {self.shots} and repeats at least 1")

    def check(self, data: "DataPair") -> None:
        """Refuse classes of too few images."""
        _require_enough(data.train, targets(data.train), targets(data.val), max((FOLDS, *self.shots)))

    def effort(self, checkpoint: "Checkpoint", data: "DataPair") -> list[str]:
        """How many machines are fitted, how long that takes, and its memory."""
        images, val = data.train, data.val
        each = len(self.costs) * (FOLDS + 1) + len(self.shots) * self.repeats * len(self.shot_costs)
        width = self.width(checkpoint)
        lasts = duration(self._planned_seconds(width, targets(images), len(val)))
        fits = f"{each * len(images.classes):,} linear SVMs on up to {len(images):,} images each, about {lasts}"
        megabytes = 16 * width * (len(images) + len(val)) / 1e6  # float64, and once more for the rows of a fit
        return [f"{fits}, at most {megabytes:,.0f} MB of memory"]

    def _planned_seconds(self, width: int, marks: Marks, val: int) -> float:
        """The time of all fits, estimated by fitting and judging a few made-up rows at each cost."""
        made_up = unit(np.random.default_rng(0).standard_normal((ROWS_TIMED, width), np.float32))
        toy = _OneClass(made_up, np.arange(ROWS_TIMED) % 8 // 7, made_up, np.ones(1, np.int64), 0)
        rows, (n, classes) = np.arange(ROWS_TIMED), marks.shape
        drawn = sum(min(classes * k, n) for k in self.shots) * self.repeats
        seconds = 0.0
        for costs, fitted, machines in (
            (self.costs, FOLDS * n, 1),  # (FOLDS - 1) / FOLDS of the rows FOLDS times, and all of them
            (self.shot_costs, drawn, len(self.shots) * self.repeats),
        ):
            for cost in costs if machines else ():
                machine = toy._fit(cost, rows)
                seconds += seconds_of(partial(toy._fit, cost, rows)) * fitted
                seconds += seconds_of(partial(machine.decision_function, made_up)) * machines * (n + val)
        return classes * seconds / ROWS_TIMED

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """The seed draws the shots and the order in which the solver visits images.

        `…_selected_on_val` takes the cost that is best on the images that are reported: optimistic, and what the
        sources report of k-shot. `folders.run` gets all average precisions in `classes.json`.
        """
        from cgh_bench.outcomes.multi_label import multi_label

        images, marks, truth = data.train, targets(data.train), targets(data.val)
        train, val = (unit(bank.features) for bank in self.features(checkpoint, data, folders))
        draw = np.random.default_rng(seed)
        found: dict[str, list[Floats]] = {}
        scores = np.zeros(truth.shape)
        with progress(f"SVMs of {checkpoint.name}", len(images.classes)) as tick:
            for number in range(len(images.classes)):
                one = _OneClass(train, marks[:, number], val, truth[:, number], seed)
                precisions, scores[:, number] = one.cross_validated(self.costs)
                found.setdefault("mAP", []).append(precisions)
                for k in self.shots:
                    drawn = [one.drawn(k, marks.shape[1], self.shot_costs, draw) for _ in range(self.repeats)]
                    found.setdefault(f"mAP_k{k}", []).append(np.mean(drawn, axis=0))
                tick(number + 1)
        folders.keep(multi_label(data.val, truth, scores, {"mAP": "area"}))
        folders.write("classes.json", json.dumps({name: np.array(aps).tolist() for name, aps in found.items()}))
        metrics: dict[str, float] = {}
        for name, by_class in found.items():
            chosen, best = 100 * np.mean(by_class, axis=0)
            metrics |= {name: float(chosen), f"{name}_selected_on_val": float(best)}
        return metrics


@dataclass(frozen=True)
class _OneClass:
    """One class against the others: features (N, D), marks (N,)."""

    train: Floats
    marks: Marks
    val: Floats
    truth: Marks
    seed: int

    def cross_validated(self, costs: tuple[float, ...]) -> tuple[Floats, Floats]:
        """AP on val (2,), of the cost that is best over the folds and of the best on val, and the former's scores."""
        from sklearn.model_selection import StratifiedKFold

        rows = np.flatnonzero(self.marks >= 0)
        folds = [(rows[fitted], rows[held]) for fitted, held in StratifiedKFold(FOLDS).split(rows, self.marks[rows])]
        scores = [mean(self._precision(self._fit(cost, fitted), held) for fitted, held in folds) for cost in costs]
        machines = [self._fit(cost, rows) for cost in costs]
        return self._choose(scores, machines), machines[int(np.argmax(scores))].decision_function(self.val)

    def drawn(self, k: int, classes: int, costs: tuple[float, ...], draw: np.random.Generator) -> Floats:
        """The same from k positives and (C - 1) k negatives (all where there are fewer), the cost best on the rest."""
        wanted = {1: k, 0: (classes - 1) * k}
        parts = [draw.permutation(np.flatnonzero(self.marks == mark)) for mark in wanted]
        rows = np.concatenate([part[:count] for part, count in zip(parts, wanted.values(), strict=True)])
        rest = np.concatenate([part[count:] for part, count in zip(parts, wanted.values(), strict=True)])
        machines = [self._fit(cost, rows) for cost in costs]
        return self._choose([self._precision(machine, rest) for machine in machines], machines)

    def _choose(self, scores: Sequence[float], machines: "Sequence[LinearSVC]") -> Floats:
        seen = self.truth >= 0
        on_val = [average_precision(m.decision_function(self.val[seen]), self.truth[seen] == 1) for m in machines]
        return np.array([on_val[int(np.argmax(scores))], max(on_val)])

    def _precision(self, machine: "LinearSVC", held: Marks) -> float:
        return average_precision(machine.decision_function(self.train[held]), self.marks[held] == 1)

    def _fit(self, cost: float, rows: Marks) -> "LinearSVC":
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        machine = LinearSVC(
            C=cost,
            class_weight={1: POSITIVE_WEIGHT, 0: 1},
            dual=True,
            max_iter=MOST_ITERATIONS,
            random_state=self.seed,
        )
        with warnings.catch_warnings():  # the sources stop after so many iterations, too
            warnings.simplefilter("ignore", ConvergenceWarning)
            return machine.fit(self.train[rows], self.marks[rows])


def unit(features: NDArray[np.float32]) -> Floats:
    """Features (N, D) divided by their Euclidean norm."""
    wide = features.astype(np.float64)
    return wide / (np.linalg.norm(wide, axis=1, keepdims=True) + 1e-5)


def targets(images: "ImageSet") -> Marks:
    """Which classes each image shows; for one label per image, that one."""
    if images.multi_label:
        return images.labels
    marks = np.zeros((len(images), len(images.classes)), dtype=np.int64)
    marks[np.arange(len(images)), images.labels] = 1
    return marks


def average_precision(scores: Floats, present: NDArray[np.bool_]) -> float:
    """The area under precision over recall, precision made falling from the right (VOC's since 2010).

    Nothing present gives zero.
    """
    hits = present[np.argsort(-scores, kind="stable")]
    if not hits.any():
        return 0.0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(falling[hits].mean())


def _require_enough(train: "ImageSet", marks: Marks, truth: Marks, needed: int) -> None:
    """Every class must have an image to find, and more to learn from than are drawn."""
    for number, name in enumerate(train.classes):
        positives, negatives = ((marks[:, number] == mark).sum() for mark in (1, 0))
        if positives <= needed or negatives <= FOLDS:
            raise UserError(
                f"class {name!r} of {train.name} has {positives} positive and {negatives} negative images; more "
                f"than {needed} and {FOLDS} are needed: leave out the larger shots, or the class"
            )
        if not (truth[:, number] == 1).any():
            raise UserError(f"no test image has class {name!r} of {train.name}; remove the class")


TASKS = {
    "voc07_svm": Svm(),
    "animals_svm": Svm("animals", AS_IS, costs=(0.1, 1.0), shots=(1, 4, 16), shot_costs=(1.0, 10.0), repeats=2),
}
