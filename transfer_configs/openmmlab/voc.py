"""PASCAL VOC as detectron2 reads and evaluates it: boxes, difficult objects, AP at eleven points."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from mmdet.datasets import VOCDataset, XMLDataset
from mmdet.evaluation import VOCMetric
from mmdet.evaluation.functional.mean_ap import average_precision, get_cls_results, tpfp_default
from mmdet.registry import DATASETS, METRICS
from numpy.typing import NDArray

from cgh_bench.transfer_configs.contract import curves, matches

Boxes = NDArray[np.float32]
THRESHOLDS = [0.5 + 0.05 * step for step in range(10)]


@DATASETS.register_module()
class VocBoxes(XMLDataset):
    """Boxes from (xmin - 1, ymin - 1) to (xmax, ymax): VOC counts pixels from 1, and the last one is inside.

    The dataset class of mmdetection subtracts 1 from every corner, so that its boxes are a pixel smaller, and it does
    not train on difficult objects, as detectron2 does.
    """

    METAINFO = VOCDataset.METAINFO

    def _parse_instance_info(
        self, raw_ann_info: ElementTree.ElementTree, minus_one: bool = True
    ) -> list[dict[str, Any]]:
        instances: list[dict[str, Any]] = super()._parse_instance_info(raw_ann_info, minus_one)
        for instance in instances:
            left, top, right, bottom = instance["bbox"]
            instance["bbox"] = [left, top, right + 1, bottom + 1]
            if not self.test_mode:
                instance["ignore_flag"] = 0
        return instances


@METRICS.register_module()
class ElevenPointAP(VOCMetric):
    """Box AP of VOC 2007: the mean of the best precisions from recall 0, .1, … 1 on; over IoU .50 to .95 and alone.

    The metric of mmdetection rounds to a tenth of a percent and widens the boxes. Metrics in percent: `box_AP`,
    `box_AP50`, `box_AP75`, `box_AP.CLASS`; `detections` is the number of detections. A class without objects is left
    out. A detection of a difficult object counts neither as right nor as wrong.

    Args:
        work: folder for `predictions.json`: image, class, box (left, top, width, height; from 0) and score.
    """

    default_prefix = None

    def __init__(self, work: str) -> None:
        super().__init__(iou_thrs=THRESHOLDS, eval_mode="11points")
        self.predictions = Path(work, "predictions.json")

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the ground truth and the detections of every image, with its name."""
        before = len(self.results)
        super().process(data_batch, data_samples)
        names = [sample["img_id"] for sample in data_samples]
        self.results[before:] = [(name, *rest) for name, rest in zip(names, self.results[before:], strict=True)]

    def compute_metrics(self, results: list[tuple[str, dict[str, Any], list[Boxes]]]) -> dict[str, float]:
        """Write the detections of all images and evaluate them."""
        names, truths, detections = (list(column) for column in zip(*results, strict=True))
        classes = self.dataset_meta["classes"]
        lines = [
            {"image_id": name, "category": label, "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]], "score": box[4]}
            for name, of_image in zip(names, detections, strict=True)
            for label, boxes in zip(classes, of_image, strict=True)
            for box in np.asarray(boxes, dtype=np.float64).tolist()
        ]
        self.predictions.write_text(json.dumps(lines), encoding="utf-8")
        truth_of: list[tuple[list[Boxes], list[Boxes], list[Boxes]]] = [
            get_cls_results(detections, truths, index) for index in range(len(classes))
        ]
        judged = {label: _judged(*lists) for label, lists in zip(classes, truth_of, strict=True)}
        matches.write(self.predictions.parent, names, judged)
        places = range(len(THRESHOLDS))
        lines_of = [[_recall_and_precision(each, place) for each in judged.values()] for place in places]
        precision = np.array([[100 * float(average_precision(*line, "11points")) for line in of] for of in lines_of])
        present = np.array([any(each.objects) for each in judged.values()])
        shown = {
            iou: [curves.at_recalls(*line) for line, there in zip(lines_of[place], present, strict=True) if there]
            for iou, place in ((0.5, 0), (0.75, 5))
        }
        curves.write(self.predictions.parent, shown)
        means = precision[:, present].mean(1)
        per_class = {f"box_AP.{c}": float(precision[:, i].mean()) for i, c in enumerate(classes) if present[i]}
        return {
            "detections": len(lines),
            "box_AP": float(means.mean()),
            "box_AP50": float(means[0]),
            "box_AP75": float(means[5]),
            **per_class,
        }


def _judged(detections: list[Boxes], truths: list[Boxes], difficult: list[Boxes]) -> matches.Judged:
    """The boxes (n, 5) of one class, by the objects (m, 4) and the difficult ones of every image.

    Uses mmdetection's parts without its `eval_map`, which forks processes beside threads and can hang.
    """
    scores = np.vstack(detections)[:, -1]
    best_first = np.argsort(-scores, kind="stable")
    image = np.repeat(np.arange(len(detections)), list(map(len, detections)))[best_first]
    found, ignored = [], []
    for threshold in THRESHOLDS:
        images = zip(detections, truths, difficult, strict=True)
        flags = (tpfp_default(*image, threshold) for image in images)
        right, wrong = (np.hstack(part)[0][best_first] > 0 for part in zip(*flags, strict=True))
        found.append(right)
        ignored.append(~(right | wrong))
    marks = np.stack(found, axis=1), np.stack(ignored, axis=1)
    return matches.Judged(image.tolist(), scores[best_first].tolist(), *marks, list(map(len, truths)))


def _recall_and_precision(judged: matches.Judged, place: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both (n,) at one IoU threshold."""
    # In float64, as in detectron2: a recall of three tenths is compared with a sum of three tenths.
    right = np.cumsum(judged.found[:, place], dtype=np.float64)
    wrong = np.cumsum(~(judged.found | judged.ignored)[:, place], dtype=np.float64)
    recall = right / max(1, sum(judged.objects))
    precision = right / np.maximum(right + wrong, np.finfo(np.float64).eps)
    return recall, precision
