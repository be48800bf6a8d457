"""Results in MTEB's layout: MODEL/REVISION/TASK.json, scores as fractions, and what is known of the model beside them.

Source: embeddings-benchmark/mteb, `mteb/load_results/task_results.py` (`TaskResult`) and `mteb/model_meta.py`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cgh_bench import tasks
from cgh_bench.report.sensitivity import label_of
from cgh_bench.results import Result

LAYOUT = "1.12.48"
"""The version of MTEB whose layout this is: it reads files of older ones in another way."""
NO_LANGUAGE = ["zxx-Zxxx"]


def files(records: Iterable[Result]) -> dict[Path, str]:
    """The content of each file, by its path below the folder of results; of equal runs the newest."""
    found: dict[Path, str] = {}
    for record in records:
        folder = Path(label_of(record).replace("/", "__"), record.checkpoint or "no_revision_available")
        found[folder / f"{record.task}.json"] = _json(_task(record))
        found[folder / "model_meta.json"] = _json(_model(record))
    return found


def _task(record: Result) -> dict[str, Any]:
    metrics = tasks.find(record.task).METRICS
    parts = {metric.name for metric in metrics if metric.unit != "%"}
    scores = {name: value if name in parts else value / 100 for name, value in record.metrics.items()}
    main = {"main_score": scores[metrics[0].name], "hf_subset": "default", "languages": NO_LANGUAGE}
    return {
        "dataset_revision": record.data,
        "task_name": record.task,
        "mteb_version": LAYOUT,
        "scores": {"val": [{**main, **scores}]},
        "evaluation_time": record.seconds,
        "kg_co2_emissions": None,
    }


def _model(record: Result) -> dict[str, Any]:
    return {
        "name": label_of(record),
        "revision": record.checkpoint,
        "n_parameters": record.origin.get("parameters"),
        "license": record.origin.get("licence"),
        "framework": ["PyTorch"],
        "modalities": ["image"],
    }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"
