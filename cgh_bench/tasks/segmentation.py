"""Semantic segmentation: a network fine-tuned on the backbone, or a linear layer on the frozen backbone."""

from dataclasses import dataclass
from typing import ClassVar

from cgh_bench.tasks.base import Metric
from cgh_bench.tasks.transfer import Transfer


@dataclass(frozen=True, kw_only=True)
class Segmentation(Transfer):
    """Fine-tune a segmentation network; mean IoU over classes.

    Also the mean and overall accuracy of pixels. Writes `predictions/NAME.png`, class indices.
    """

    METRICS: ClassVar = (Metric("mIoU"), Metric("mAcc"), Metric("aAcc"))

    framework: str = "mmseg"


TASKS = {
    "animals_seg": Segmentation(data="animal_scenes", protocol="animals_seg", arch="resnet18"),
    "voc_seg": Segmentation(data="voc2012_aug", protocol="voc_seg", arch="resnet50"),
    "voc_seg_moco": Segmentation(data="voc2012_aug", protocol="voc_seg_moco", arch="resnet50"),
    "voc_seg_linear": Segmentation(data="voc2012_aug", protocol="voc_seg_linear", arch="resnet50"),
    "cityscapes_seg": Segmentation(data="cityscapes", protocol="cityscapes_seg", arch="resnet50"),
    "cityscapes_seg_moco": Segmentation(data="cityscapes", protocol="cityscapes_seg_moco", arch="resnet50"),
    "ade20k_seg": Segmentation(data="ade20k", protocol="ade20k_seg", arch="resnet50"),
    "ade20k_upernet": Segmentation(data="ade20k", protocol="ade20k_upernet", arch="resnet50"),
}
