"""Monitoring that leaves a run unchanged: kNN and RankMe on a subset, exported snapshots, trackers (W&B, MLflow)."""

import importlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.files import write_text
from cgh_bench.data.image_set import ImageSet
from cgh_bench.data.transform import EvalTransform
from cgh_bench.frozen.label_free import rankme, singular_values, uniformity
from cgh_bench.frozen.metrics import rank_by
from cgh_bench.frozen.neighbours import neighbours
from cgh_bench.networks.base import Backbone
from cgh_bench.pretrain.recipe import Recipe

NEIGHBOURS, TEMPERATURE = 20, 0.07
"""As in the monitor of CGH's code and in the task `knn`."""
BANK, QUERIES, BATCH_SIZE = 4096, 1024, 128
"""Most images for the kNN, evenly spread, and images per forward pass: its cost does not grow with the data."""
EPS = 1e-7
"""In RankMe, as in the task `label_free`."""

TRACKED = "tracking.json"
"""The ids of a folder's run in each tracker."""


@dataclass(frozen=True)
class Watching:
    """What is measured, kept and reported during a run; the weights do not depend on it."""

    knn_epochs: int = 0
    """Epochs between logs of the kNN accuracy; 0: never."""
    label_free_epochs: int = 0
    """Epochs between logs of RankMe and uniformity; 0: never."""
    snapshot_epochs: int = 0
    """Epochs between exports of the backbone to `snapshots/`; 0: never."""
    keep: int = 1
    """States of the last epochs to keep; with more than 1, as `checkpoint-STEP.pt`."""
    trackers: tuple[str, ...] = ()
    """More places to log to: wandb, mlflow."""

    def __post_init__(self) -> None:
        if min(self.knn_epochs, self.label_free_epochs, self.snapshot_epochs) < 0 or self.keep < 1:
            raise UserError("knn_epochs, label_free_epochs and snapshot_epochs must be at least 0, keep at least 1")
        for name in self.trackers:
            if name not in TRACKERS:
                raise unknown("tracker", name, TRACKERS)


OFF = Watching()


@torch.inference_mode()
def knn_top1(backbone: Backbone, recipe: Recipe, train: ImageSet, val: ImageSet) -> float:
    """Top-1 accuracy in per cent of a vote of the 20 nearest neighbours, on a subset of the data.

    Comparable within a run, not with `cgh-bench eval`, which uses all images. The backbone is left in train mode.

    Raises:
        UserError: the dataset is multi-label.
    """
    if train.labels.ndim > 1:
        raise UserError(f"{train.name} is a multi-label dataset; kNN needs one label per image: leave --knn-epochs out")
    backbone.eval()
    bank, known = _features(backbone, recipe, train, BANK)
    queries, truth = _features(backbone, recipe, val, QUERIES)
    backbone.train()
    similarity, row = neighbours(bank, queries, NEIGHBOURS)
    return rank_by(similarity, known[row], truth, len(train.classes), NEIGHBOURS, TEMPERATURE).top1


@torch.inference_mode()
def label_free(backbone: Backbone, recipe: Recipe, train: ImageSet) -> dict[str, float]:
    """RankMe and uniformity of the features of at most `BANK` train images, whose labels are not looked at.

    Comparable within a run: both depend on how many images there are and how wide the feature is. The backbone is left
    in train mode.
    """
    backbone.eval()
    features, _ = _features(backbone, recipe, train, BANK)
    backbone.train()
    return {"rankme": rankme(singular_values(features), EPS), "uniformity": uniformity(features)}


def _features(
    backbone: Backbone, recipe: Recipe, images: ImageSet, most: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The features (N, D) and labels (N,) of at most `most` images."""
    rows = np.unique(np.linspace(0, len(images) - 1, most).astype(np.int64))
    size = recipe.views.augments[0].size
    transform = EvalTransform(resize=size * 8 // 7, crop=size)
    device = next(backbone.parameters()).device
    parts = []
    for start in range(0, len(rows), BATCH_SIZE):
        batch = torch.stack([transform(images.image(int(row))) for row in rows[start : start + BATCH_SIZE]])
        features: Tensor = backbone(recipe.preprocessing(batch.to(device)))
        parts.append(features.float().cpu().numpy())
    return np.concatenate(parts), images.labels[rows]


class Tracker(Protocol):
    """A dashboard that a run logs to."""

    id: str
    """The id of its run there, kept in the run's folder, so that a resumed run continues it."""

    def write(self, line: Mapping[str, float], step: int) -> None:
        """Log the numbers of a step."""
        ...

    def close(self) -> None:
        """Finish the run."""
        ...


class WandB:
    """Weights & Biases (https://docs.wandb.ai); the axis is our own step: its own drops lines that do not rise."""

    def __init__(self, module: ModuleType, folder: Path, recipe: dict[str, Any], run_id: str) -> None:
        self.id = run_id or secrets.token_hex(8)
        name = _title(folder)
        self.run = module.init(
            project="cgh-bench", name=name, id=self.id, config=recipe, dir=str(folder), resume="allow"
        )
        self.run.define_metric("*", step_metric="step")

    def write(self, line: Mapping[str, float], step: int) -> None:
        """Log the numbers of a step."""
        self.run.log({**line, "step": step})

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class MLflow:
    """MLflow (https://mlflow.org/docs), at MLFLOW_TRACKING_URI."""

    def __init__(self, module: ModuleType, folder: Path, recipe: dict[str, Any], run_id: str) -> None:
        self.module = module
        module.set_experiment("cgh-bench")
        self.id = str(module.start_run(run_id=run_id or None, run_name=_title(folder)).info.run_id)
        if not run_id:
            module.log_params({field: json.dumps(value) for field, value in recipe.items()})

    def write(self, line: Mapping[str, float], step: int) -> None:
        """Log the numbers of a step."""
        self.module.log_metrics(dict(line), step=step)

    def close(self) -> None:
        """Finish the run."""
        self.module.end_run()


TRACKERS: dict[str, Callable[[ModuleType, Path, dict[str, Any], str], Tracker]] = {"wandb": WandB, "mlflow": MLflow}


def tracker(name: str, folder: Path) -> Tracker:
    """Start the tracker of that name, or continue its run of this folder.

    Raises:
        UserError: its package is not installed.
    """
    try:
        module = importlib.import_module(name)
    except ImportError:
        raise UserError(f"{name} is not installed: pip install {name}, or leave --track {name} out") from None
    recipe = json.loads((folder / "recipe.json").read_text())["recipe"]
    ids = json.loads((folder / TRACKED).read_text()) if (folder / TRACKED).exists() else {}
    started = TRACKERS[name](module, folder, recipe, ids.get(name, ""))
    write_text(folder / TRACKED, json.dumps({**ids, name: started.id}) + "\n")
    return started


def _title(folder: Path) -> str:
    return "-".join(folder.resolve().parts[-2:])
