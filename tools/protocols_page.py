#!/usr/bin/env python
"""Write docs/protocols.md from the tasks: what each is, to the last value.

python tools/protocols_page.py
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from cgh_bench.core.config import plain
from cgh_bench.core.files import write_text
from cgh_bench.core.registry import registered
from cgh_bench.data import dense
from cgh_bench.evaluation import protocol_id
from cgh_bench.tasks.base import Task

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "protocols.md"

HEAD = """# Protocols

<!-- Written by tools/protocols_page.py from the code; do not edit. -->

A task's whole configuration is its fields, and the part of the protocol id after the `@` is their fingerprint:
anything that changes the meaning of a number changes the id, and numbers with different ids never share a column.
`--set FIELD=VALUE` changes a field for one run, which is then marked as overridden and appears in no table.

The first metric of each list is the main one. Tasks without a dataset need `--data`. If a value is `none`, that step is
left out.
"""

TITLES = {
    "Attentive": "Attentive probe",
    "CityscapesInstances": "Cityscapes instance segmentation",
    "Correspondence": "Semantic correspondence",
    "Discovery": "Object discovery",
    "FineTune": "Fine-tuning",
    "FineTuneVit": "Fine-tuning of vision transformers",
    "ImageNetC": "ImageNet-C",
    "ImageNetC19": "ImageNet-C with its extra corruptions",
    "InContext": "In-context segmentation",
    "Instances": "Instance retrieval",
    "KNN": "kNN",
    "KNNApproximate": "Approximate kNN",
    "KNNFewShot": "Few-shot kNN",
    "KNNGrid": "kNN with a grid of features, K and T",
    "KNNMultiLabel": "Multi-label kNN",
    "LabelFree": "Label-free metrics",
    "LeaveOneOut": "Leave-one-out kNN",
    "Linear": "Linear probe",
    "LinearSgd": "Linear probe with SGD",
    "LvisDetection": "LVIS detection",
    "Normals": "Surface normals",
    "OutOfDistribution": "Out-of-distribution detection",
    "PatchKnn": "Patch kNN",
    "PatchLogistic": "Patch logistic regression",
    "Revisited": "Revisited Oxford and Paris",
    "RidgeFewShot": "Few-shot ridge regression",
    "Segmentation": "Semantic segmentation",
    "Shifted": "Distribution shifts",
    "Svm": "Linear SVM",
    "Tracking": "Video segmentation",
}
"""Headings of kinds whose class name is not one."""
UNSET = ("iterations", "settings")
"""Fields that are hidden when empty: the protocol's own values apply."""
SOMETIMES = {
    "top5": " (if more than five classes)",
    "worst_group": " (if images have groups)",
    "lidar": " (if there are enough crops)",
    "alpha": " (if there are enough images)",
}
"""When metrics are reported that not every run has."""
ARROWS = {True: "", False: " (lower is better)", None: " (neither direction is better)"}


def page() -> str:
    """The page's text."""
    kinds: dict[type, dict[str, Task]] = {}
    for name, task in registered("cgh_bench.tasks", "TASKS").items():
        kinds.setdefault(type(task), {})[name] = task
    return HEAD + "".join(_kind(kind, tasks) for kind, tasks in kinds.items())


def _kind(kind: type, tasks: dict[str, Task]) -> str:
    """A section: what tasks of this kind do, a table of them, and their shared values."""
    about = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    metrics = ", ".join(
        f"`{m.name}`{m.unit and f' in {m.unit}'}{ARROWS[m.higher_is_better]}{SOMETIMES.get(m.name, '')}"
        for m in next(iter(tasks.values())).METRICS
    )
    values = {name: _values(task) for name, task in tasks.items()}
    shared = {field: value for field, value in next(iter(values.values())).items() if _same(field, values)}
    text = f"\n## {_title(kind)}\n\n{about}\n\nMetrics: {metrics}.\n\n"
    text += "| protocol | data | differences |\n| --- | --- | --- |\n"
    for name, task in tasks.items():
        own = "; ".join(f"{field} {_shown(value)}" for field, value in values[name].items() if field not in shared)
        text += f"| `{protocol_id(name, task)}` | {_data(task.data)} | {own} |\n"
    if shared:
        text += "\nShared by all: " + "; ".join(f"{field} {_shown(value)}" for field, value in shared.items()) + ".\n"
    return text


def _title(kind: type) -> str:
    """A heading: from `TITLES`, or the class name in words."""
    return TITLES.get(kind.__name__) or " ".join(re.findall(r"[A-Z][a-z]+", kind.__name__)).capitalize()


def _values(task: Task) -> dict[str, Any]:
    """Every value that defines the task, nested fields by dotted names, except its data and file hashes."""
    assert dataclasses.is_dataclass(task)
    flat: dict[str, Any] = {}
    _flatten(plain(task), "", flat)
    hidden = {"data", "definition", "val_split", *(name for name in UNSET if not flat.get(name))}
    return {field: value for field, value in flat.items() if field not in hidden}


def _flatten(value: Any, path: str, flat: dict[str, Any]) -> None:
    if isinstance(value, dict):
        if path == "schedule":  # of several kinds
            flat[path] = value["type"].lower()
        for name, inner in value.items():
            if name != "type":
                _flatten(inner, f"{path}.{name}" if path else name, flat)
    else:
        flat[path] = value


def _same(field: str, values: dict[str, dict[str, Any]]) -> bool:
    every = list(values.values())
    return all(field in each and each[field] == every[0][field] for each in every)


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
    return f"`{text}`" if text else "none"


def _data(name: str) -> str:
    if not name:
        return "`--data`"
    return f"`$CGH_DATA/{dense.layouts()[name].folder}`" if name in dense.layouts() else f"`{name}`"


if __name__ == "__main__":
    write_text(PAGE, page())
