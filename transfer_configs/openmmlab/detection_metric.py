"""Box and mask AP by pycocotools, not rounded, from one file of predictions in COCO's results format."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from pycocotools.cocoeval import COCOeval

from cgh_bench.transfer_configs.openmmlab.classes import ids_of

STATS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5}
"""Indices into `COCOeval.stats`."""


@METRICS.register_module()
class InstanceAP(CocoMetric):
    """COCO's metric. That of mmdet rounds to a tenth of a percent and returns nothing if nothing is detected.

    Metrics in percent: `box_AP`, `mask_AP50`, …, `box_AP.CLASS`. `detections` is the number of detections; if it is 0,
    every AP is 0. Classes and size ranges without ground truth are left out.

    Args:
        ann_file: ground truth, COCO JSON.
        work: folder for `predictions.json`, boxes and run-length masks.
        masks: whether to evaluate masks as well.
    """

    default_prefix = None

    def __init__(self, ann_file: str, work: str, masks: bool) -> None:
        super().__init__(ann_file=ann_file, metric=["bbox", "segm"] if masks else ["bbox"])
        self.predictions = Path(work, "predictions.json")

    def compute_metrics(self, results: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, float]:
        """Write the predictions of all images and evaluate them."""
        self.cat_ids = ids_of(self._coco_api.dataset["categories"], self.dataset_meta["classes"])
        detections = [line for _, result in results for line in self._lines(result)]
        self.predictions.write_text(json.dumps(detections), encoding="utf-8")
        metrics: dict[str, float] = {"detections": len(detections)}
        for kind in self.metrics:
            metrics |= self._average_precision(detections, kind)
        return metrics

    def _lines(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        boxes = np.asarray(result["bboxes"], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
        lines: list[dict[str, Any]] = [
            {"image_id": result["img_id"], "category_id": self.cat_ids[label], "bbox": box, "score": float(score)}
            for label, box, score in zip(result["labels"], boxes.tolist(), result["scores"], strict=True)
        ]
        if "masks" in result:
            for line, mask in zip(lines, result["masks"], strict=True):
                line["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode()}
        return lines

    def _average_precision(self, detections: list[dict[str, Any]], kind: str) -> dict[str, float]:
        name = {"bbox": "box", "segm": "mask"}[kind]
        classes = [category["name"] for category in self._coco_api.load_cats(self.cat_ids)]
        if not detections:
            return {f"{name}_{stat}": 0.0 for stat in [*STATS, *(f"AP.{label}" for label in classes)]}
        if kind == "segm":  # with a box beside it, pycocotools would take the box's area for the mask's
            detections = [{key: value for key, value in line.items() if key != "bbox"} for line in detections]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self._coco_api, self._coco_api.loadRes(detections), kind)
            evaluation.params.catIds = self.cat_ids
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        stats = {stat: float(evaluation.stats[place]) for stat, place in STATS.items()}
        metrics = {f"{name}_{stat}": 100 * value for stat, value in stats.items() if value >= 0}
        precision = evaluation.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class; all areas, 100 detections
        for index, label in enumerate(classes):
            known = precision[:, :, index][precision[:, :, index] > -1]
            if known.size:
                metrics[f"{name}_AP.{label}"] = 100 * float(known.mean())
        return metrics
