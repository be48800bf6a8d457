"""Semantic segmentation: a fully convolutional network fine-tuned on the trunk."""

from dataclasses import dataclass
from typing import ClassVar

from cgh_bench.tasks import Metric
from cgh_bench.transfer import Transfer


@dataclass(frozen=True, kw_only=True)
class Segmentation(Transfer):
    """Mean IoU over classes, and mean and overall accuracy of pixels. Leaves `predictions/NAME.png`, class indices."""

    METRICS: ClassVar = (Metric("mIoU"), Metric("mAcc"), Metric("aAcc"))

    framework: str = "mmseg"


TASKS = {
    "animals_seg": Segmentation(data="animal_scenes", protocol="animals_seg", arch="resnet18"),
}
