"""The base of all tasks: frozen dataclasses whose fields are their configuration. Importing one loads no torch."""

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from cgh_bench.core.device import Precision
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing, write_text
from cgh_bench.data.transform import IMAGENET_KNN, EvalTransform
from cgh_bench.foreign.launch import DEFAULT_LAUNCH, Launch
from cgh_bench.frozen.selection import require_different, require_one_label

if TYPE_CHECKING:
    from PIL.Image import Image

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair, ImageSet
    from cgh_bench.frozen.features import FeatureBank
    from cgh_bench.outcomes import Outcomes


@dataclass(frozen=True)
class Metric:
    """One number that a task reports."""

    name: str
    unit: str = "%"
    higher_is_better: bool | None = True
    """None: neither direction is better."""
    always: bool = True
    """Whether every run reports it, or only some data allow it."""

    @property
    def suffix(self) -> str:
        """The text after its name in a table: the unit unless per cent, and an arrow if lower is better."""
        unit = "" if self.unit in ("%", "") else f" [{self.unit}]"
        return unit + (" ↓" if self.higher_is_better is False else "")


LABELS = {
    "top1": "Top-1",
    "top5": "Top-5",
    "top1_std": "Top-1 SD",
    "top1_clean": "Top-1, clean",
    "top1_corrupted": "Top-1, corrupted",
    "top1_worst": "Top-1, worst corruption",
    "top1_covered": "Top-1, most confident",
    "accuracy": "Accuracy",
    "class_balanced": "Mean per-class",
    "worst_group": "Worst group",
    "converged": "Converged heads",
    "retained": "Accuracy retained",
    "mce": "mCE",
    "mce_19": "mCE (19 corruptions)",
    "recall": "Recall",
    "mAP_11_points": "mAP (11 points)",
    "mIoU_held_out": "mIoU, held out",
    "pck_point": "PCK per point",
    "pck_image": "PCK per image",
    "pck_class": "PCK per class",
    "rmse": "RMSE",
    "abs_rel": "AbsRel",
    "delta1": "δ1",
    "within_11": "Within 11.25°",
    "within_22": "Within 22.5°",
    "within_30": "Within 30°",
    "rankme": "RankMe",
    "rankme_gaussian": "RankMe of noise",
    "lidar": "LiDAR",
    "alpha": "α-ReQ",
    "alignment": "Alignment",
    "uniformity": "Uniformity",
    "temperature": "Temperature",
}
"""What people call a metric, where its name says it differently; see `metric_label`."""


def metric_label(name: str) -> str:
    """The name of a metric as people write it: `Top-1`, `Box AP50`, `mIoU`."""
    plain = name.removesuffix("_selected_on_val")
    label = LABELS.get(plain) or plain.replace("box_", "Box ").replace("mask_", "Mask ")
    return label if plain == name else f"{label} (tuned on val)"


TOP5 = Metric("top5", always=False)
"""Reported for more than five classes."""
WORST_GROUP = Metric("worst_group", always=False)
"""Reported for images with groups, together with `group_NAME`, the top-1 of each."""
CONVERGED = Metric("converged")
"""The share of the grid's classifiers that reached their optimum within the iterations."""


PICTURES = "pictures"
"""The subfolder of a run's folder with pictures of its output."""


@dataclass(frozen=True)
class Folders:
    """Where a run may write, and the hardware that a framework may use. With several processes, the first writes."""

    run: Path
    """This run's own: predictions, logs, pictures, checkpoints."""
    cache: Path
    """Shared by all runs: features, bundled datasets; everything in it can be regenerated."""
    launch: Launch = DEFAULT_LAUNCH
    """GPUs and images at a time for tasks that run in a framework."""

    @property
    def features(self) -> Path:
        """The cached features, one folder for each bank."""
        return self.cache / "features"

    @property
    def _writes(self) -> bool:
        """Whether this process is the one that writes."""
        from cgh_bench.core import dist

        return dist.rank() == 0

    def write(self, name: str, text: str) -> None:
        """Write the run's file `name` atomically."""
        if self._writes:
            write_text(self.run / name, text)

    def table(self, name: str, header: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
        """A CSV file of the run."""
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([header, *rows])
        self.write(name, lines.getvalue())

    def keep(self, outcomes: "Outcomes") -> None:
        """Save the per-image predictions as `outcomes.npz`, used to compare runs and to verify metrics."""
        if self._writes:
            outcomes.save(self.run)

    def picture(self, name: str, image: "Image") -> None:
        """Save a picture as `pictures/NAME.png`; the site shows it beside the number."""
        if self._writes:
            with replacing(self.run / PICTURES / f"{name}.png", flush=False) as path:
                image.save(path)

    def save(self, name: str, **arrays: Any) -> None:
        """Save NumPy arrays as an `.npz` archive."""
        import numpy as np

        if self._writes:
            with replacing(self.run / name) as path:
                np.savez(path, **arrays)


class Data(Protocol):
    """The data that a task is evaluated on."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the content."""
        ...

    @property
    def subset(self) -> str:
        """How much of the published data is present, if a subset is intended; else empty."""
        ...


D = TypeVar("D", bound=Data)


class Task(ABC, Generic[D]):
    """An evaluation. The dataclass fields are the protocol: changing a value changes the protocol id."""

    METRICS: ClassVar[tuple[Metric, ...]]
    """Every metric that `run` returns; the first is the main one."""
    data: str
    """The dataset: a name from the catalogue or a folder; empty if the user must name one."""

    @abstractmethod
    def load_data(self, cache: Path) -> D:
        """Load the dataset `data`; the bundled datasets are written below `cache`.

        Raises:
            UserError: data are missing or broken; says which, where they are expected, and how to get them.
        """

    def others(self) -> tuple[str, ...]:
        """The names of other datasets whose val images are evaluated too."""
        return ()

    def from_pair(self, data: "DataPair", cache: Path) -> D:
        """The data of the task with the train and val images `data`, which the user may have passed in memory.

        Raises:
            UserError: the task needs the files of its own dataset.
        """
        raise UserError(
            f"{type(self).__name__} needs the files of its own dataset; images in memory are for frozen-feature tasks"
        )

    def open_fields(self, data: str) -> tuple[str, ...]:
        """The fields that may differ from the task's on `data` without marking the result as overridden.

        They change the id. Examples are the dataset of a task without a fixed one, and how it is split.
        """
        return () if self.data else ("data", "val_split")

    def check(self, data: D) -> None:
        """Refuse data that the task cannot use, before any work.

        Raises:
            UserError: what is wrong with them.
        """

    def check_backbone(self, checkpoint: "Checkpoint") -> None:
        """Refuse a checkpoint that the task cannot use, before its data are looked for.

        Raises:
            UserError: what the task needs.
        """

    def plan(self, checkpoint: "Checkpoint", data: D, folders: Folders) -> list[str]:
        """The time, disk space and memory that `run` will need, one line each; nothing is written."""
        return []

    @abstractmethod
    def run(self, checkpoint: "Checkpoint", data: D, folders: Folders, seed: int) -> dict[str, float]:
        """Evaluate `checkpoint` on checked `data` and return `{metric: value}`; resumes an interrupted run.

        Tasks with per-image predictions pass them to `folders.keep`.
        """

    def cost(self, checkpoint: "Checkpoint", data: D) -> dict[str, Any]:
        """The cost of one image for the backbone, see `frozen.cost`; empty if the task does not measure it."""
        return {}

    def versions(self, folders: Folders) -> dict[str, str]:
        """Packages of another environment that a finished run in `folders` used, with their versions."""
        return {}


@dataclass(frozen=True)
class FrozenTask(Task[D]):
    """A task on what a backbone computes."""

    precision: Precision = field(default="fp32", metadata={"later": True}, kw_only=True)
    """The arithmetic of the backbone, on any device: fp32 without TF32, tf32, or bf16 (autocast)."""


@dataclass(frozen=True)
class ImageTask(FrozenTask["DataPair"]):
    """A task on labelled images, each of one class."""

    data: str = ""
    transform: EvalTransform = IMAGENET_KNN
    val_split: float = field(default=0.0, metadata={"later": True}, kw_only=True)
    """For your own folder without val/: the share of every class's images drawn for val, with seed 0."""

    def load_data(self, cache: Path) -> "DataPair":
        """The train and the val images, and those of `others`."""
        from cgh_bench.data import data_root, load_pair

        return self.from_pair(load_pair(self.data, data_root(), cache, self.val_split), cache)

    def from_pair(self, data: "DataPair", cache: Path) -> "DataPair":
        """`data` with the images of `others`."""
        from cgh_bench.data import data_root, load

        others = {name: load(name, "val", data_root(), cache) for name in self.others()}
        return replace(data, others=others) if others else data

    def check(self, data: "DataPair") -> None:
        """Refuse a multi-label dataset, a single class, and val images that are the train images."""
        require_one_label(data.train)
        require_different(data.train, data.val)


@dataclass(frozen=True)
class FeatureTask(ImageTask):
    """A task on one feature of the frozen backbone, extracted once and cached."""

    feature: str = "layer4"

    def sets(self, data: "DataPair") -> "Sequence[tuple[ImageSet, EvalTransform]]":
        """The images whose features are used, and how they are cut: train, val, and those of `others`."""
        return [(images, self.transform) for images in (data.train, data.val, *data.others.values())]

    def features(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders) -> "list[FeatureBank]":
        """The features of each of `sets`."""
        return self.banks(checkpoint, self.sets(data), folders)

    def banks(
        self, checkpoint: "Checkpoint", sets: "Sequence[tuple[ImageSet, EvalTransform]]", folders: Folders
    ) -> "list[FeatureBank]":
        """The features of images cut by their transforms."""
        from cgh_bench.frozen.features import extract

        return [extract(checkpoint, *one, self.feature, folders.features, self.precision) for one in sets]

    def plan(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders) -> list[str]:
        """Time and disk of the features, and what else there is to tell."""
        from cgh_bench.frozen import features

        plans = (
            features.plan(checkpoint, *one, (self.feature,), folders.features, self.precision)
            for one in self.sets(data)
        )
        return [*chain.from_iterable(plans), *self.effort(checkpoint, data)]

    def cost(self, checkpoint: "Checkpoint", data: "DataPair") -> dict[str, Any]:
        """FLOPs and images per second of the feature; nothing of features that were given without a network."""
        from cgh_bench.frozen.cost import cost
        from cgh_bench.frozen.extraction import Work

        if checkpoint.origin.source == "features":
            return {}
        images, transform = self.sets(data)[0]
        parts = (checkpoint.architecture.targets(self.feature),)
        return cost(Work(checkpoint, images, transform, parts, self.precision))

    def effort(self, checkpoint: "Checkpoint", data: "DataPair") -> list[str]:
        """What `run` takes beside the features, one line each."""
        return []

    def width(self, checkpoint: "Checkpoint") -> int:
        """How many numbers the feature has."""
        return checkpoint.architecture.width(checkpoint.architecture.targets(self.feature))
