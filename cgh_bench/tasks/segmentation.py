"""Semantic segmentation: a network fine-tuned on the backbone, or a linear layer on the frozen backbone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.data.dense import DenseData
from cgh_bench.tasks.base import Metric
from cgh_bench.tasks.transfer import Transfer

if TYPE_CHECKING:
    from cgh_bench.outcomes import Outcomes


@dataclass(frozen=True, kw_only=True)
class Segmentation(Transfer):
    """Fine-tune a segmentation network; mean IoU over classes.

    Also mean class accuracy and pixel accuracy. Writes `predictions/NAME.png` (class indices).
    """

    ANNOTATED: ClassVar = "maps"
    METRICS: ClassVar = (Metric("mIoU"), Metric("mAcc"), Metric("aAcc"))

    framework: str = "mmseg"

    def outcomes(self, data: DenseData, run: Path) -> "Outcomes | None":
        """The predicted maps against the dataset's own."""
        from cgh_bench.data import ground_truth
        from cgh_bench.outcomes.base import named_images
        from cgh_bench.outcomes.segmentation import segmentation

        names = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        maps = ground_truth.maps(self.data, data, names)
        if maps is None:
            return None
        images = named_images(f"{self.data}/val", [image.stem for image, _ in maps.pairs], data.fingerprint)
        classes = [name for name in maps.values if name != ground_truth.NO_CLASS]
        first = len(maps.values) - len(classes)  # pixels of no class are 0
        return segmentation(
            images,
            classes,
            ((read_map(true, first), read_map(run / "predictions" / f"{i.stem}.png", first)) for i, true in maps.pairs),
        )


def read_map(path: Path, first: int) -> NDArray[np.int64]:
    """Class indices (H, W) of a PNG in which the first class is `first`; what is below is negative."""
    return np.asarray(Image.open(path)).astype(np.int64) - first


TASKS = {
    "animals_seg": Segmentation(data="animal_scenes", protocol="animals_seg", arch="resnet18"),
    "animals_seg_any": Segmentation(data="animal_scenes", protocol="animals_seg_any", arch="any"),
    "animals_seg_quick": Segmentation(data="animal_scenes", protocol="animals_seg_quick", arch="any"),
    "voc_seg": Segmentation(data="voc2012_aug", protocol="voc_seg", arch="resnet50"),
    "voc_seg_moco": Segmentation(data="voc2012_aug", protocol="voc_seg_moco", arch="resnet50"),
    "voc_seg_linear": Segmentation(data="voc2012_aug", protocol="voc_seg_linear", arch="resnet50"),
    "cityscapes_seg": Segmentation(data="cityscapes", protocol="cityscapes_seg", arch="resnet50"),
    "cityscapes_seg_moco": Segmentation(data="cityscapes", protocol="cityscapes_seg_moco", arch="resnet50"),
    "ade20k_seg": Segmentation(data="ade20k", protocol="ade20k_seg", arch="resnet50"),
    "ade20k_linear": Segmentation(data="ade20k", protocol="ade20k_linear", arch="single-scale"),
    "ade20k_upernet": Segmentation(data="ade20k", protocol="ade20k_upernet", arch="resnet50"),
    "ade20k_upernet_vit": Segmentation(data="ade20k", protocol="ade20k_upernet_vit", arch="single-scale"),
    "ade20k_upernet_convnext": Segmentation(data="ade20k", protocol="ade20k_upernet_convnext", arch="multi-scale"),
    "ade20k_upernet_swin": Segmentation(data="ade20k", protocol="ade20k_upernet_swin", arch="multi-scale"),
}
