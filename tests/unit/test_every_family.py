"""Everything that evaluates frozen features, and fine-tuning, on a small network of each form."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from toy_images import toy_data

import cgh_bench
from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.timm import Timm
from cgh_bench.checkpoint import Checkpoint, Origin, Preprocessing
from cgh_bench.data.transform import Crop, EvalTransform

TASKS: dict[str, dict[str, Any]] = {
    "knn": {"k": 3, "k_grid": (1, 3)},
    "linear": {"weight_decays": (1e-3,), "held_out": 0.2},
    "linear_sgd": {"learning_rates": (0.1,), "held_out": 0, "epochs": 1, "crop": Crop(32)},
    "animals_svm": {"costs": (1.0,), "shots": (2,), "shot_costs": (1.0,), "repeats": 1},
    "clusters": {"starts": 1, "iterations": 5},
    "logistic": {},
    "finetune": {"epochs": 1, "batch_size": 8, "crop": Crop(32)},
}
SMALL: dict[str, Architecture] = {
    "convnext": Timm("convnext_atto", (("depths", (1, 1, 1, 1)), ("dims", (8, 8, 16, 16)))),
    "swin": Timm(
        "swin_tiny_patch4_window7_224",
        (("img_size", 32), ("window_size", 4), ("embed_dim", 8), ("depths", (1, 1)), ("num_heads", (1, 2))),
    ),
    "registers": Timm(
        "vit_small_patch14_reg4_dinov2",
        (("img_size", 32), ("patch_size", 8), ("embed_dim", 16), ("depth", 2), ("num_heads", 2)),
    ),
}


def small(kind: str, folder: Path) -> Checkpoint:
    torch.manual_seed(0)
    if kind in SMALL:
        weights = SMALL[kind].build().state_dict()
        return Checkpoint(kind, SMALL[kind], weights, Preprocessing(), Origin("test"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    model = transformers.AutoModel.from_config(transformers.Dinov2WithRegistersConfig(**sizes))
    model.save_pretrained(folder)
    return cgh_bench.load(folder)


@pytest.mark.parametrize("kind", [*SMALL, "folder"])
def test_every_task(kind: str, tmp_path: Path) -> None:
    checkpoint = small(kind, tmp_path / "hub")
    for task, settings in TASKS.items():
        found = cgh_bench.evaluate(
            checkpoint, task, toy_data(), work=tmp_path / "work", transform=EvalTransform(32, 32), **settings
        )
        assert all(0 <= value <= 100 for value in found.metrics.values()), (task, found.metrics)
        assert found.checkpoint == checkpoint.id
