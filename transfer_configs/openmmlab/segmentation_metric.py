"""Mean intersection over union, not rounded, with each class's own; predictions as PNG."""

from pathlib import Path
from typing import Any

import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS


@METRICS.register_module()
class SemanticIoU(IoUMetric):
    """mmseg's own metric rounds to a hundredth of a per cent and only prints the classes.

    A constant mIoU hides a network that answers one class everywhere; the classes' own IoU shows it. Metrics are per
    cent: `mIoU`, `mAcc`, `aAcc`, `IoU.CLASS`. A class that occurs neither in truth nor in prediction counts nowhere.

    Args:
        work: folder for `predictions/`, one PNG of class indices for each image.
    """

    def __init__(self, work: str) -> None:
        super().__init__(output_dir=str(Path(work, "predictions")))

    def compute_metrics(self, results: list[tuple[torch.Tensor, ...]]) -> dict[str, float]:
        """From the areas (C,) of intersection, union, prediction and truth of each image."""
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
