"""Results that other tools measured, read from the files they write: one small parser per tool.

A parser returns {label: {metric: value in per cent}}; a file that holds several evaluations has several labels. An
imported result appears in tables only if the user says which task's protocol the run followed.
"""

import csv
import datetime
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgh_bench import tasks
from cgh_bench.core.config import plain
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.files import sha256
from cgh_bench.evaluation import protocol_id
from cgh_bench.results import IMPORTED, Result

Evaluations = dict[str, dict[str, float]]
NO_PROTOCOL = "imported"
"""The protocol of an imported result whose protocol the user does not state."""


@dataclass(frozen=True)
class Importer:
    """How one tool's files are read."""

    description: str
    parse: Callable[[Path], Evaluations]


@dataclass(frozen=True)
class Import:
    """Which result to import, and for which checkpoint."""

    path: Path
    tool: str
    """A name of `IMPORTERS`."""
    checkpoint_name: str
    """The name that table rows use."""
    label: str = ""
    """Which evaluation, if the file holds several."""
    task: str = ""
    """The task whose current protocol the run followed, according to the user; empty if none."""
    seed: int = 0


def read(what: Import) -> Result:
    """The result in a file of another tool; its origin has the file's hash.

    Raises:
        UserError: an unknown tool or task, a file that is missing or was not written by that tool, several evaluations
            without a label that names one, or a task whose main metric is missing.
    """
    if what.tool not in IMPORTERS:
        raise unknown("tool to import from", what.tool, IMPORTERS)
    metrics = _chosen(what, _parse(what))
    protocol, config = NO_PROTOCOL, {}
    if what.task:
        task = tasks.find(what.task)
        if (main := task.METRICS[0].name) not in metrics:
            raise UserError(f"{what.path} has no {main}, the main metric of {what.task}; it has {', '.join(metrics)}")
        protocol, config = protocol_id(what.task, task), plain(task)
    written = datetime.datetime.fromtimestamp(int(what.path.stat().st_mtime), datetime.UTC)
    origin = {"source": IMPORTED, "tool": what.tool, "path": str(what.path), "sha256": sha256(what.path)}
    return Result(
        task=what.task or what.tool,
        protocol=protocol,
        metrics=metrics,
        checkpoint="",
        checkpoint_name=what.checkpoint_name,
        origin={**origin, "label": what.label},
        data="",
        config=config,
        seed=what.seed,
        started=written.isoformat(),
    )


def _parse(what: Import) -> Evaluations:
    expected = IMPORTERS[what.tool].description
    try:
        found = IMPORTERS[what.tool].parse(what.path)
    except FileNotFoundError:
        raise UserError(f"{what.path} not found; expected {expected}") from None
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        csv.Error,
    ) as e:
        raise UserError(f"{what.path} is not a results file of {what.tool} ({e!r:.200}); expected {expected}") from None
    # A metric of nothing (the AP of small objects where there are none) is NaN, or -1 in COCO's evaluation.
    usable = {
        label: {name: value for name, value in metrics.items() if math.isfinite(value) and value >= 0}
        for label, metrics in found.items()
    }
    usable = {label: metrics for label, metrics in usable.items() if metrics}
    if not usable:
        raise UserError(f"{what.path} has no known {what.tool} metric with a finite value; expected {expected}")
    return usable


def _chosen(what: Import, found: Evaluations) -> dict[str, float]:
    if not what.label and len(found) == 1:
        return next(iter(found.values()))
    if not what.label:
        raise UserError(f"{what.path} holds several evaluations; choose one with --label: {', '.join(found)}")
    if what.label not in found:
        raise unknown(f"evaluation in {what.path}:", what.label, found)
    return found[what.label]


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file that is one, or has one per line; other lines are skipped."""
    text = path.read_text(encoding="utf-8")
    try:
        yield dict(json.loads(text))
        return
    except json.JSONDecodeError:
        pass
    for line in text.splitlines():
        if line.startswith("{"):
            yield dict(json.loads(line))


def _last(path: Path, names: Mapping[str, str], factor: Callable[[dict[str, Any]], float]) -> Evaluations:
    """The known metrics of the last object that has any, renamed by `names` and multiplied by the object's factor."""
    for entry in reversed(list(_objects(path))):
        if found := {names[key]: factor(entry) * float(value) for key, value in entry.items() if key in names}:
            return {"": found}
    return {}


_DETECTRON2 = {
    **{f"{theirs}/{ap}": f"{ours}_{ap}" for theirs, ours in (("bbox", "box"), ("segm", "mask"))
       for ap in ("AP", "AP50", "AP75", "APs", "APm", "APl")},
    "sem_seg/mIoU": "mIoU",
    "sem_seg/mACC": "mAcc",
    "sem_seg/pACC": "aAcc",
}  # fmt: skip


def _detectron2(path: Path) -> Evaluations:
    """Per cent, on the line of the last evaluation; other lines are of the training.

    Source: detectron2@02b5c4e detectron2/utils/events.py (JSONWriter), evaluation/*.py.
    """
    return _last(path, _DETECTRON2, lambda entry: 1)


_COCO_NAMES = {
    f"{prefix}{theirs}_mAP{suffix}": f"{ours}_AP{ap}"
    for prefix in ("coco/", "")
    for theirs, ours in (("bbox", "box"), ("segm", "mask"))
    for suffix, ap in (("", ""), ("_50", "50"), ("_75", "75"), ("_s", "s"), ("_m", "m"), ("_l", "l"))
}


def _mmdet(path: Path) -> Evaluations:
    """Fractions, in mmengine's scalars and test results and in the older `.log.json`.

    Source: mmdetection mmdet/evaluation/metrics/coco_metric.py.
    """
    return _last(path, _COCO_NAMES, lambda entry: 100)


def _mmseg(path: Path) -> Evaluations:
    """Per cent in mmengine's files; fractions in the older `.log.json`, whose lines have a `mode`.

    Source: mmsegmentation mmseg/evaluation/metrics/iou_metric.py; 0.x: mmseg/datasets/custom.py.
    """
    names = {name: name for name in ("mIoU", "mAcc", "aAcc")}
    return _last(path, names, lambda entry: 100 if "mode" in entry else 1)


def _dino(path: Path) -> Evaluations:
    """DINOv2 and v3: kNN in per cent, one label per K; the linear classifier that is best on val as a fraction.

    Runs append to the file, so the last value of a name counts.
    Source: dinov2/eval/knn.py, dinov2/eval/linear.py, dinov3/eval/knn.py.
    """
    found: Evaluations = {}
    for entry in _objects(path):
        for key, value in entry.items():
            if knn := re.fullmatch(r"(.+) Top ([15])", key):
                found.setdefault(knn[1], {})[f"top{knn[2]}"] = float(value)
            elif key == "best_classifier":
                found["linear"] = {"top1_selected_on_val": 100 * float(value["accuracy"])}
    return found


def _lightly(path: Path) -> Evaluations:
    """The printed output of a benchmark: fractions, one label for each of knn, linear and finetune.

    Source: lightly benchmarks/imagenet/resnet50/*_eval.py.
    """
    found: Evaluations = {}
    pattern = r"^(?:max )?(knn|linear|finetune) val_top([15])\S*: ([\d.]+)\s*$"
    for kind, k, value in re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(kind, {})[f"top{k}"] = 100 * float(value)
    return found


def _solo_learn(path: Path) -> Evaluations:
    """The printed output of `main_knn.py`, one label per setting, or the summary of a linear run in W&B: per cent.

    Source: solo-learn main_knn.py, solo/methods/linear.py.
    """
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("{"):
        return _last(path, {"val_acc1": "top1", "val_acc5": "top5"}, lambda entry: 1)
    found: Evaluations = {}
    feature = setting = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"### (\w+) ###", line.strip()):
            feature = heading[1].lower()
        elif asked := re.search(r"k-NN with params: (.+?)(\.\.\.)?$", line.strip()):
            setting = asked[1]
        elif result := re.search(r"Result: acc@1=([\d.]+), acc@5=([\d.]+)", line):
            found[f"{feature}, {setting}"] = {"top1": float(result[1]), "top5": float(result[2])}
    return found


def _mteb(path: Path) -> Evaluations:
    """Fractions, one label for each split and subset; `main_score` repeats one of the others.

    Source: mteb mteb/load_results/task_results.py (TaskResult).
    """
    return {
        f"{split}, {entry['hf_subset']}": {
            name: 100 * float(value)
            for name, value in entry.items()
            if isinstance(value, int | float) and name != "main_score"
        }
        for split, entries in json.loads(path.read_text(encoding="utf-8"))["scores"].items()
        for entry in entries
    }


def _timm(path: Path) -> Evaluations:
    """`results-*.csv`, and what `validate.py` writes: per cent, one label per model.

    Source: pytorch-image-models results/README.md, validate.py.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return {line["model"]: {name: float(line[name]) for name in ("top1", "top5")} for line in lines}


IMPORTERS = {
    "detectron2": Importer("metrics.json of a training or an evaluation", _detectron2),
    "mmdet": Importer("vis_data/*.json of mmengine, a test's *.json, or a .log.json of mmdetection 2", _mmdet),
    "mmseg": Importer("vis_data/*.json of mmengine, a test's *.json, or a .log.json of mmsegmentation 0", _mmseg),
    "dino": Importer("results_eval_knn.json and results_eval_linear.json of DINOv2 and DINOv3", _dino),
    "lightly": Importer("the printed output of benchmarks/imagenet/*/main.py", _lightly),
    "solo-learn": Importer("the printed output of main_knn.py, or wandb-summary.json of main_linear.py", _solo_learn),
    "mteb": Importer("TASK.json of a model's folder of results", _mteb),
    "timm": Importer("results/results-*.csv, or the CSV of validate.py", _timm),
}
