"""Cityscapes' own evaluation of instances (cityscapesScripts), in percent."""

from pathlib import Path
from typing import Any

from mmdet.evaluation import CityScapesMetric
from mmdet.evaluation.metrics import cityscapes_metric as original
from mmdet.registry import METRICS

from cgh_bench.transfer_configs.contract.cityscapes import ap_by_class
from cgh_bench.transfer_configs.openmmlab import classes  # noqa: F401 (classes by their names)

if not original.HAS_CITYSCAPESAPI:  # mmdetection would only find out after the training
    raise SystemExit("ImportError: Cityscapes' evaluation needs cityscapesscripts; pip install cityscapesscripts")


@METRICS.register_module()
class CityscapesAP(CityScapesMetric):
    """`mask_AP`, the mean over IoU .50 to .95, `mask_AP50` and `mask_AP.CLASS`; `detections` is their number.

    The ground truth is read from gtFine beside the images, not from the annotations that the network was trained on.

    Args:
        work: folder for `predictions/`: per image a list and one PNG per mask, as the evaluation server expects.
    """

    default_prefix = None

    def __init__(self, work: str) -> None:
        super().__init__(outfile_prefix=str(Path(work, "predictions")), seg_prefix="beside the images")
        self.work = Path(work)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Evaluate the predictions that were written."""
        with ap_by_class(original, self.work) as by_class:
            averages = super().compute_metrics(results)
        lists = (Path(predicted["pred_txt"]) for _, predicted in results)
        detections = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in lists)
        return {
            "detections": detections,
            "mask_AP": 100 * float(averages["mAP"]),
            "mask_AP50": 100 * float(averages["AP@50"]),
            **{f"mask_AP.{name}": ap for name, ap in by_class.items()},
        }
