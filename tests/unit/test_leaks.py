"""Leaks: the labels of the images that are reported change no choice, no weight and no answer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_images import toy_data

from cgh_bench import outcomes, tasks
from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.data.image_set import DataPair
from cgh_bench.data.transform import AS_IS
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.knn_grid import KNNGrid
from cgh_bench.tasks.linear import Linear
from cgh_bench.tasks.logistic import LogisticRegression

CACHED = {
    "linear": Linear("toy", AS_IS, weight_decays=(1e-4, 1e-2, 1.0), held_out=0.25),
    "linear_path": replace(tasks.find("linear_path"), data="toy", transform=AS_IS, held_out=0.25),
    "logistic": LogisticRegression("toy", AS_IS, strengths=(1e-4, 1e-2, 1.0)),
    "knn_grid": KNNGrid("toy", AS_IS, features=("cls", "patch_mean"), ks=(1, 5, 20), temperatures=(0.07, 1.0)),
}
TRAINED = (
    "linear_sgd",
    "imagenet_linear_dinov2",
    "imagenet_linear_dinov2_vit",
    "imagenet_linear_dinov3_vit",
    "imagenet_linear_dino_vit_base",
    "imagenet_linear_mae",
    "imagenet_attentive_capi",
    "finetune",
    "finetune_vit",
)


def small(name: str) -> Any:
    """The protocol on toy images: its grid, features, descent and schedule, in a few small steps."""
    task: Any = tasks.find(name)
    few = {"steps": 3} if getattr(task, "steps", 0) else {}
    features = {"features": ("cls", "block5")} if "layer3+layer4" in getattr(task, "features", ()) else {}
    held = {"held_out": 0.25} if getattr(task, "held_out", 0) else {}
    crop = replace(task.crop, size=32)
    return replace(task, data="toy", transform=AS_IS, crop=crop, epochs=2, batch_size=8, **few, **features, **held)


@pytest.fixture(scope="module")
def vit() -> Checkpoint:
    return random_checkpoint("test_vit")


def learned(task: Any, vit: Checkpoint, data: DataPair, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights and answers of a run, and what it noted of its choice."""
    folder.mkdir()
    task.run(vit, data, Folders(folder, folder.parent / "cache"), 0)
    numbers: dict[str, Any] = {"predicted": torch.tensor(outcomes.load(folder).predicted)}
    noted: dict[str, Any] = {}
    if (state := folder / "state.pt").exists():
        numbers["learner"] = torch.load(state, weights_only=True)["learner"]
        epochs = json.loads((folder / "epochs.json").read_text())
        records = epochs if isinstance(epochs, list) else epochs["epochs"]
        noted["epochs"] = [{key: value for key, value in each.items() if "held" in key} for each in records]
    if (grid := folder / "grid.json").exists():
        noted |= {key: json.loads(grid.read_text()).get(key) for key in ("chosen", "held_out", "held_out_top1")}
    return numbers, noted


@pytest.mark.parametrize("name", [*CACHED, *TRAINED])
def test_permuted_test_labels_change_nothing_that_is_learned(name: str, vit: Checkpoint, tmp_path: Path) -> None:
    task, data = CACHED.get(name) or small(name), toy_data()
    order = np.random.default_rng(1).permutation(len(data.val))
    permuted = replace(data, val=replace(data.val, labels=data.val.labels[order]))
    (one, noted), (two, also) = (
        learned(task, vit, each, tmp_path / n) for n, each in (("one", data), ("two", permuted))
    )
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert noted == also
