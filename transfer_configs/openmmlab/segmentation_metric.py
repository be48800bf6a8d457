"""Mean intersection over union, not rounded, with the IoU of each class; predictions as PNG."""

from pathlib import Path
from typing import Any

import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS


@METRICS.register_module()
class SemanticIoU(IoUMetric):
    """The metric of mmseg, which rounds to a hundredth of a percent and only prints the IoU of classes.

    The IoU of classes shows if a network predicts one class everywhere. Metrics in percent: `mIoU`, `mAcc`, `aAcc`,
    `IoU.CLASS`. A class that occurs neither in ground truth nor in predictions is left out.

    Args:
        work: folder for `predictions/`, one PNG of class indices per image.
    """

    def __init__(self, work: str) -> None:
        super().__init__(output_dir=str(Path(work, "predictions")))

    def compute_metrics(self, results: list[tuple[torch.Tensor, ...]]) -> dict[str, float]:
        """From the areas (C,) of intersection, union, prediction and ground truth of each image."""
        intersection, union, _, truth = (torch.stack(areas).double().sum(0) for areas in zip(*results, strict=True))
        iou = intersection / union
        classes: list[Any] = list(self.dataset_meta["classes"])
        per_class = {f"IoU.{n}": 100 * float(v) for n, v in zip(classes, iou, strict=True) if v.isfinite()}
        return {
            "mIoU": 100 * float(iou.nanmean()),
            "mAcc": 100 * float((intersection / truth).nanmean()),
            "aAcc": 100 * float(intersection.sum() / truth.sum()),
            **per_class,
        }
