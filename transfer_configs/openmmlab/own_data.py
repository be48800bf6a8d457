"""Data of the user's own in place of a protocol's: heads for their classes, the pipelines of the protocol."""

import importlib
import json
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

PACKAGE = "cgh_bench.transfer_configs.openmmlab"


def put(config: Config, file: Path) -> None:
    """Train and evaluate on the data that `file` describes (`cgh_bench.data.own`), by COCO's AP or mean IoU.

    Network, sizes, augmentation and schedule stay the protocol's. Weights of classes in a loss are left out.
    """
    told = json.loads(file.read_text(encoding="utf-8"))
    _number_classes(config.model, len(told["classes"]))
    for loader, split in (("train_dataloader", "train"), ("test_dataloader", "val")):
        dataset = ConfigDict({**_first(config[loader].dataset), **_dataset(told, split)})
        for step in (step for step in dataset.pipeline if step.type == "LoadAnnotations"):
            step.pop("reduce_zero_label", None)
            if told.get("run_lengths") and step.get("with_mask"):
                step.poly2mask = True  # mmdetection would leave out masks that are run lengths
        config[loader].dataset = dataset
    if told["kind"] == "objects":
        importlib.import_module(f"{PACKAGE}.detection_metric")
        masks = config.model.get("roi_head", {}).get("mask_head") is not None
        config.test_evaluator = {"type": "InstanceAP", "ann_file": told["val"], "masks": masks}
    else:
        importlib.import_module(f"{PACKAGE}.own_maps")


def _first(dataset: Any) -> dict[str, Any]:
    """What is kept of the dataset, or of the first of several."""
    first = dataset["datasets"][0] if "datasets" in dataset else dataset
    return {key: first[key] for key in ("pipeline", "filter_cfg", "test_mode") if key in first}


def _dataset(told: dict[str, Any], split: str) -> dict[str, Any]:
    named = {"classes": tuple(told["classes"])}
    if told["kind"] == "maps":
        palette = [[(37 * place) % 256] * 3 for place in range(len(told["classes"]))]
        return {"type": "OwnMaps", "pairs": told[split], "metainfo": {**named, "palette": palette}}
    return {"type": "CocoDataset", "ann_file": told[split], "data_prefix": {"img": told["images"]}, "metainfo": named}


def _number_classes(node: Any, count: int) -> None:
    """Set every head's number of classes."""
    if isinstance(node, list | tuple):
        for child in node:
            _number_classes(child, count)
    elif isinstance(node, dict):
        if "num_classes" in node:
            node["num_classes"] = count
        node.pop("class_weight", None)
        for child in node.values():
            _number_classes(child, count)
