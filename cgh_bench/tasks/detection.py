"""Object detection and instance segmentation: a detector fine-tuned on the backbone."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cgh_bench.core.errors import UserError
from cgh_bench.data.dense import DenseData, Own
from cgh_bench.foreign import frameworks
from cgh_bench.tasks.base import Metric
from cgh_bench.tasks.transfer import Transfer

if TYPE_CHECKING:
    from cgh_bench.outcomes import Outcomes


OWN_RULES = {"voc0712": "VOC2007", "cityscapes_inst": "Cityscapes"}
"""Datasets that are evaluated by rules of their own, and the names of these in `outcomes`."""


@dataclass(frozen=True, kw_only=True)
class _Detector(Transfer):
    """A detector; on COCO's form of annotations it is evaluated by COCO's rules."""

    ANNOTATED: ClassVar = "objects"

    def check(self, data: DenseData) -> None:
        """Refuse boxes without masks where masks are reported."""
        with_masks = any(metric.name.startswith("mask") for metric in self.METRICS)
        if with_masks and isinstance(data, Own) and data.without_mask:
            raise UserError(
                f"{self.protocol} needs masks, but {data.without_mask} has only a box; use a task for boxes "
                f"({', '.join(_for_boxes(self.framework))})"
            )

    def outcomes(self, data: DenseData, run: Path) -> "Outcomes | None":
        """The detections, each right or wrong: by the dataset's own metric where it has one, else by pycocotools."""
        from cgh_bench.core.saved import load_arrays
        from cgh_bench.data import ground_truth
        from cgh_bench.outcomes.detection import detection, judged
        from cgh_bench.transfer_configs.contract.matches import FILE

        name, known = f"{self.data}/val", [metric.name for metric in self.METRICS]
        if self.data in OWN_RULES:
            if not (run / FILE).is_file():  # of a run that ended before this was kept
                return None
            return judged(name, data.fingerprint, load_arrays(run / FILE), OWN_RULES[self.data], known)
        objects = ground_truth.objects(self.data, data)
        if objects is None or objects.file is None:
            return None
        return detection(name, data.fingerprint, objects.file, run / "predictions.json", known)


@dataclass(frozen=True, kw_only=True)
class Detection(_Detector):
    """Fine-tune an instance segmentation detector; box and mask AP.

    COCO's metric: the mean over IoU .50 to .95. Writes `predictions.json` in COCO's results format.
    """

    METRICS: ClassVar = tuple(Metric(f"{kind}_{ap}") for kind in ("box", "mask") for ap in ("AP", "AP50", "AP75"))

    framework: str = "mmdet"


@dataclass(frozen=True, kw_only=True)
class BoxDetection(_Detector):
    """Fine-tune a detector; box AP.

    The mean over IoU .50 to .95: COCO's AP or, on VOC itself, the 11-point AP of VOC 2007.
    """

    METRICS: ClassVar = tuple(Metric(f"box_{ap}") for ap in ("AP", "AP50", "AP75"))

    framework: str = "mmdet"


@dataclass(frozen=True, kw_only=True)
class KeypointDetection(_Detector):
    """Fine-tune a detector of persons and their keypoints; keypoint AP by object keypoint similarity, and box AP.

    COCO's metrics: the mean over similarity, or IoU, .50 to .95.
    """

    METRICS: ClassVar = tuple(Metric(f"{kind}_{ap}") for kind in ("keypoint", "box") for ap in ("AP", "AP50", "AP75"))

    framework: str = "detectron2"

    def check(self, data: DenseData) -> None:
        """Refuse objects without the keypoints that COCO's persons have."""
        if isinstance(data, Own) and data.without_keypoints:
            raise UserError(f"{self.protocol} needs COCO's keypoints of persons; {data.without_keypoints}")


@dataclass(frozen=True, kw_only=True)
class LvisDetection(_Detector):
    """Fine-tune an instance segmentation detector on LVIS; box and mask AP by its own rules.

    The mean over IoU .50 to .95 of classes annotated in an image; APr, APc and APf are of rare, common and frequent
    classes.
    """

    METRICS: ClassVar = tuple(
        Metric(f"{kind}_{ap}") for kind in ("box", "mask") for ap in ("AP", "AP50", "AP75", "APr", "APc", "APf")
    )

    framework: str = "detectron2"

    def check(self, data: DenseData) -> None:
        """Refuse data of the user's own, which have not what LVIS's loss and metric read."""
        if isinstance(data, Own):
            raise UserError(f"{self.protocol} reads LVIS's own annotations; for other data use coco_vitdet")


@dataclass(frozen=True, kw_only=True)
class CityscapesInstances(_Detector):
    """Fine-tune an instance segmentation detector; mask AP by Cityscapes' own evaluation (on other data, COCO's).

    Writes `predictions/` in the format of the Cityscapes server.
    """

    METRICS: ClassVar = (Metric("mask_AP"), Metric("mask_AP50"))

    framework: str = "mmdet"


def _for_boxes(framework: str) -> list[str]:
    return [name for name, task in TASKS.items() if isinstance(task, BoxDetection) and task.framework == framework]


TASKS: dict[str, _Detector] = {
    "animals_det": Detection(data="animal_scenes", protocol="animals_det", arch="resnet18"),
    "animals_det_any": Detection(data="animal_scenes", protocol="animals_det_any", arch="any"),
    "animals_det_quick": BoxDetection(data="animal_scenes", protocol="animals_det_quick", arch="any"),
    "voc_det": BoxDetection(data="voc0712", protocol="voc_det", arch="resnet50"),
    "coco_det": Detection(data="coco", protocol="coco_det", arch="resnet50"),
    "coco_det_2x": Detection(data="coco", protocol="coco_det_2x", arch="resnet50"),
    "coco_fpn": Detection(data="coco", protocol="coco_fpn", arch="resnet50"),
    "coco_fpn_4conv1fc": Detection(data="coco", protocol="coco_fpn_4conv1fc", arch="resnet50"),
    "coco_retinanet": BoxDetection(data="coco", protocol="coco_retinanet", arch="resnet50"),
    "coco_vitdet": Detection(data="coco", protocol="coco_vitdet", arch="single-scale"),
    "coco_fpn_swin": Detection(data="coco", protocol="coco_fpn_swin", arch="multi-scale"),
    "coco_cascade": Detection(data="coco", protocol="coco_cascade", arch="single-scale"),
    "coco_dino": BoxDetection(data="coco", protocol="coco_dino", arch="multi-scale"),
    "coco_frozen": Detection(data="coco", protocol="coco_frozen", arch="any"),
    "coco_quick": BoxDetection(data="coco", protocol="coco_quick", arch="any"),
    "cityscapes_inst": CityscapesInstances(data="cityscapes_inst", protocol="cityscapes_inst", arch="resnet50"),
    "coco_keypoints": KeypointDetection(data="coco_keypoints", protocol="coco_keypoints", arch="resnet50"),
    "coco_keypoints_2x": KeypointDetection(data="coco_keypoints", protocol="coco_keypoints_2x", arch="resnet50"),
    "coco_keypoints_any": KeypointDetection(data="coco_keypoints", protocol="coco_keypoints_any", arch="any"),
    "lvis_vitdet": LvisDetection(data="lvis", protocol="lvis_vitdet", arch="single-scale"),
}
TASKS |= {
    f"{name}_detectron2": replace(task, framework="detectron2")
    for name, task in TASKS.items()
    if task.framework != "detectron2" and task.protocol in frameworks.find("detectron2").protocols
}
