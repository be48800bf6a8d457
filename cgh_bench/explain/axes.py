"""What may have been done otherwise: the axes of a protocol, and the values that each may take."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cgh_bench.data import DataPair
from cgh_bench.data.preprocessing import PREPROCESSINGS
from cgh_bench.reading.loading import hub_settings
from cgh_bench.results import Result
from cgh_bench.tasks.base import FeatureTask

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint

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


def of_task(task: FeatureTask, data: DataPair, checkpoint: "Checkpoint") -> Iterator[Variant]:
    """Other values of the task's own settings."""
    yield from (Variant("cut", settings) for settings in _cuts(task, data, checkpoint))
    yield from (Variant("feature", (f"feature={feature}",)) for feature in _features(checkpoint))
    for axis, settings in TASK_AXES.items():
        name = settings[0].partition("=")[0]
        if not hasattr(task, name.partition(".")[0]) or (axis == "interpolation" and task.transform.resize is None):
            continue
        for setting in settings:
            if axis != "k" or int(setting.partition("=")[2]) <= len(data.train):
                yield Variant(axis, (setting,))


def _cuts(task: FeatureTask, data: DataPair, checkpoint: "Checkpoint") -> Iterator[tuple[str, ...]]:
    transform = task.transform
    side = transform.crop or transform.resize or min(data.val.image(0).shape[1:])
    for resize, crop in CUTS:
        sides = (f"transform.resize={round(side * resize)}", f"transform.crop={round(side * crop)}")
        yield (*sides, "transform.squash=False")
    yield f"transform.resize={side}", f"transform.crop={side}", "transform.squash=True"
    if checkpoint.origin.transform:
        yield tuple(hub_settings(checkpoint))


def of_images() -> Iterator[Variant]:
    """Other preprocessing than the checkpoint's."""
    for axis, settings in PREPROCESSING_AXES.items():
        yield from (Variant(axis, of_images=(setting,)) for setting in settings)


def of_metric(result: Result, metric: str) -> Iterator[Variant]:
    """Other numbers of the same run."""
    for axis, name in (("selection on val", metric + SELECTED), ("mean over classes", BALANCED)):
        if name in result.metrics:
            yield Variant(axis, metric=name)


def _features(checkpoint: "Checkpoint") -> Iterator[str]:
    """Class token, mean of patches, both, and the last stages; not every network has each."""
    yield from ("layer4", "head", "cls", "patch_mean", "cls+patch_mean")
    stages = list(checkpoint.backbone(copy=False).stages)
    yield from dict.fromkeys("+".join(stages[-count:]) for count in (1, 2, 4))
    yield from stages[-2:-1]
