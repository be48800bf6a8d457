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

A task's whole configuration is its fields, and the part of the protocol id behind the `@` is their fingerprint:
whatever changes the meaning of a number changes the id, and numbers of different ids never share a column.
`--set FIELD=VALUE` changes one field of one run, which is then marked as overridden and fills no table.

The first metric is the main one. Tasks without a dataset take `--data`. Where a
value is `none`, that step is left out.
"""

ACRONYMS = {"KNN": "kNN", "Svm": "SVM", "Sgd": "SGD", "Cityscapes": "Cityscapes"}
UNSET = ("iterations", "settings")
"""Fields that say nothing when they are empty: the protocol's own values hold."""
FEW = " (for more than five classes)"
ARROWS = {True: "", False: " (lower is better)", None: " (neither direction is better)"}


def page() -> str:
    """The page's text."""
    kinds: dict[type, dict[str, Task]] = {}
    for name, task in registered("cgh_bench.tasks", "TASKS").items():
        kinds.setdefault(type(task), {})[name] = task
    return HEAD + "".join(_kind(kind, tasks) for kind, tasks in kinds.items())


def _kind(kind: type, tasks: dict[str, Task]) -> str:
    """A section: what tasks of this kind do, a table of them, and the values that they share."""
    about = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    metrics = ", ".join(
        f"`{m.name}`{m.unit and f' in {m.unit}'}{ARROWS[m.higher_is_better]}{'' if m.always else FEW}"
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
        text += "\nIn all of them: " + "; ".join(f"{field} {_shown(value)}" for field, value in shared.items()) + ".\n"
    return text


def _title(kind: type) -> str:
    """The class name in words: `BoxDetection` is box detection."""
    words = re.findall(r"KNN|[A-Z][a-z]+", kind.__name__)
    text = " ".join(ACRONYMS.get(word, word.lower()) for word in words)
    return text if text.startswith("kNN") else text[0].upper() + text[1:]


def _values(task: Task) -> dict[str, Any]:
    """Every value that defines the task, nested fields by dotted names; not its data, nor the hash of a file."""
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
