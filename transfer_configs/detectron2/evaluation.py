"""The evaluators of detectron2, with metrics under our names and predictions in COCO's results format."""

import contextlib
import importlib
import importlib.util
import itertools
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    COCOEvaluator,
    DatasetEvaluator,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    pascal_voc_evaluation,
)
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.evaluation.pascal_voc_evaluation import parse_rec
from detectron2.utils import comm

from cgh_bench.transfer_configs.contract import curves, matches
from cgh_bench.transfer_configs.contract.cityscapes import ap_by_class
from cgh_bench.transfer_configs.contract.records import write_json

KINDS = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}
TOOLS = {"cityscapes": "cityscapesscripts", "lvis_v1": "lvis"}
"""What the evaluation on a dataset needs beside detectron2."""
IOUS = [percent / 100 for percent in range(50, 100, 5)]


class Coco(COCOEvaluator):
    """COCO's metric: AP at 101 recall points, mean over IoU (keypoints: similarity) .50 to .95."""

    def __init__(self, name: str, kinds: tuple[str, ...], work: Path) -> None:
        self.folder = work / "evaluation"
        super().__init__(name, tasks=kinds, output_dir=str(self.folder))
        self.predictions = work / "predictions.json"

    def _derive_coco_results(self, coco_eval: Any, iou_type: str, class_names: Any = None) -> dict[str, float]:
        """As in detectron2, with the names of classes in the order in which pycocotools has them: by their ids."""
        ids = self._metadata.thing_dataset_id_to_contiguous_id
        names = [self._metadata.thing_classes[ids[number]] for number in sorted(ids)]
        return super()._derive_coco_results(coco_eval, iou_type, names)

    def evaluate(self, img_ids: Any = None) -> dict[str, Any]:
        """As in detectron2, which writes its predictions to files of other names."""
        results: dict[str, Any] = super().evaluate(img_ids)
        if comm.is_main_process():
            (self.folder / "coco_instances_results.json").replace(self.predictions)
            shutil.rmtree(self.folder)
        return results


class Lvis(LVISEvaluator):
    """LVIS's metric: in each image, AP of the classes that are annotated there or known to be absent."""

    def __init__(self, name: str, kinds: tuple[str, ...], work: Path) -> None:
        self.folder = work / "evaluation"
        super().__init__(name, tasks=kinds, output_dir=str(self.folder), max_dets_per_image=300)
        self.predictions = work / "predictions.json"

    def evaluate(self) -> dict[str, Any] | None:
        """As in detectron2, which writes its predictions to files of other names."""
        np.float = float  # type: ignore[attr-defined]  # lvis 0.5.3 uses this name, which NumPy removed in 1.24
        results: dict[str, Any] | None = super().evaluate()
        if results:
            (self.folder / "lvis_instances_results.json").replace(self.predictions)
            shutil.rmtree(self.folder)
        return results


class Voc(PascalVOCDetectionEvaluator):
    """VOC's metric: for 2007, AP at 11 recall points, mean over IoU .50 to .95; difficult objects do not count.

    A class without objects is left out; in detectron2 it counts as 0.
    """

    def __init__(self, name: str, work: Path) -> None:
        super().__init__(name)
        self.predictions = work / "predictions.json"

    def reset(self) -> None:
        """Start a new evaluation."""
        super().reset()
        self.lines: list[dict[str, Any]] = []

    def process(self, inputs: Any, outputs: Any) -> None:
        """Collect the outputs for a batch."""
        super().process(inputs, outputs)
        for image, output in zip(inputs, outputs, strict=True):
            self.lines += instances_to_coco_json(output["instances"].to("cpu"), image["image_id"])

    def evaluate(self) -> dict[str, Any] | None:
        """As in detectron2, with `AP-CLASS` per class. Image ids are VOC's names, category ids class indices."""
        lines = comm.gather(self.lines)
        if comm.is_main_process():
            write_json(self.predictions, list(itertools.chain(*lines)))
        with _recorded() as (found, listed):
            results: dict[str, Any] | None = super().evaluate()
        if results:
            judged = self._judged(listed)
            measured = {name: lines for name, lines in found.items() if any(judged[name].objects)}
            shown = ((0.5, 0), (0.75, 5))  # the places of two of ten IoU thresholds
            curves.write(
                self.predictions.parent,
                {iou: [curves.at_recalls(*lines[place][:2]) for lines in measured.values()] for iou, place in shown},
            )
            known = {name: [100 * float(line[2]) for line in lines] for name, lines in measured.items()}
            if len(known) < len(found):
                by_iou = [mean(values) for values in zip(*known.values(), strict=True)]
                results["bbox"] |= {"AP": mean(by_iou), "AP50": by_iou[0], "AP75": by_iou[5]}
            results["bbox"] |= {f"AP-{name}": mean(values) for name, values in known.items()}
        return results

    def _judged(self, listed: Mapping[str, list[list[str]]]) -> dict[str, matches.Judged]:
        """How the detections of each class were judged, which is written to `matches.npz`, too."""
        names = Path(self._image_set_path).read_text(encoding="utf-8").split()
        truth = [parse_rec(self._anno_file_template.format(name)) for name in names]
        place, judged = {name: number for number, name in enumerate(names)}, {}
        for label, lines in listed.items():
            order = np.argsort([-float(line[1]) for line in lines])  # of equal scores, too, the evaluator's own
            surest = [lines[row] for row in order]
            found = [(place[image], float(score), np.array(box, float)) for image, score, *box in surest]
            objects = [[each for each in image if each["name"] == label] for image in truth]
            boxes = [np.array([each["bbox"] for each in image], float).reshape(-1, 4) for image in objects]
            difficult = [np.array([each["difficult"] for each in image], bool) for image in objects]
            judged[label] = matches.of_voc(found, list(zip(boxes, difficult, strict=True)), IOUS)
        matches.write(self.predictions.parent, names, judged)
        return judged


@contextlib.contextmanager
def _recorded() -> Iterator[tuple[dict[str, list[Any]], dict[str, list[list[str]]]]]:
    """What VOC's evaluator computes in this block and from what.

    For each class recall, precision and AP, one per IoU; and the lines of its detections, in words.
    """
    found: dict[str, list[Any]] = defaultdict(list)
    listed: dict[str, list[list[str]]] = {}
    original = pascal_voc_evaluation.voc_eval

    def recording(detections: str, truth: str, images: str, name: str, **options: Any) -> Any:
        curve = original(detections, truth, images, name, **options)
        found[name].append(curve)
        if name not in listed:
            text = Path(detections.format(name)).read_text(encoding="utf-8")
            listed[name] = [line.split(" ") for line in text.splitlines() if line]
        return curve

    pascal_voc_evaluation.voc_eval = recording
    try:
        yield found, listed
    finally:
        pascal_voc_evaluation.voc_eval = original


class Cityscapes(CityscapesInstanceEvaluator):
    """Cityscapes' own metric for masks, from gtFine beside the images; `predictions/` is as its server expects."""

    def __init__(self, name: str, work: Path) -> None:
        super().__init__(name)
        self.predictions = work.resolve() / "predictions"

    def reset(self) -> None:
        """Start a new evaluation, in an empty folder that is kept; that of detectron2 is temporary."""
        super().reset()
        if comm.is_main_process():
            shutil.rmtree(self.predictions, ignore_errors=True)
            self.predictions.mkdir()
        comm.synchronize()
        self._temp_dir = str(self.predictions)

    def evaluate(self) -> dict[str, Any] | None:
        """As in detectron2, with `AP-CLASS`, and without the files that Cityscapes' tools leave beside predictions."""
        tools = importlib.import_module("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
        recorded = ap_by_class(tools, self.predictions.parent)
        with contextlib.chdir(self.predictions), recorded as aps:  # matches.json is in the current folder
            results: dict[str, Any] | None = super().evaluate()
        if results:
            results["segm"] |= {f"AP-{name}": ap for name, ap in aps.items()}
        if comm.is_main_process():
            for name in ("gtInstances.json", "matches.json"):
                (self.predictions / name).unlink(missing_ok=True)
        return results


def require_tools(name: str) -> None:
    """Stop before the training if the evaluation of the test set `name` would fail after it."""
    tool = TOOLS.get(name.split("/", maxsplit=1)[0])
    if tool and importlib.util.find_spec(tool) is None:
        raise SystemExit(f"ImportError: the evaluation on {name} needs {tool}; pip install {tool}")


def evaluator(name: str, work: Path, masks: bool = False, keypoints: bool = False) -> DatasetEvaluator:
    """The evaluator for the test set `name`; writes `predictions.json` (Cityscapes: `predictions/`) to `work`."""
    kinds = ("bbox", *["segm"] * masks, *["keypoints"] * keypoints)
    if name.startswith("cityscapes/"):
        return Cityscapes(name, work)
    if name.startswith("lvis_v1/"):
        return Lvis(name, kinds, work)
    return Voc(name, work) if name.startswith("voc/") else Coco(name, kinds, work)


def flat(results: Mapping[str, Mapping[str, float]] | None, work: Path, name: str) -> dict[str, float]:
    """`box_AP`, `mask_AP50`, …, `box_AP.CLASS` in percent, and `detections`, the number of detections.

    If nothing is detected, every AP is 0. Classes and size ranges without ground truth are left out.
    """
    if not results:
        return {}
    detections = _detections(work)
    metrics: dict[str, float] = {"detections": detections}
    named = () if name.startswith("lvis_v1/") else MetadataCatalog.get(name).thing_classes
    classes = [f"AP.{label}" for label in named]
    for kind, reported in results.items():
        values = reported if detections else dict.fromkeys([*reported, *classes], 0.0)
        known = {stat.replace("AP-", "AP."): float(value) for stat, value in values.items() if math.isfinite(value)}
        metrics |= {f"{KINDS[kind]}_{stat}": value for stat, value in known.items()}
    return metrics


def _detections(work: Path) -> int:
    """The number of detections in the predictions that an evaluator wrote."""
    if (work / "predictions.json").exists():
        return len(json.loads((work / "predictions.json").read_text(encoding="utf-8")))
    return sum(len(path.read_text().splitlines()) for path in (work / "predictions").glob("*_pred.txt"))
