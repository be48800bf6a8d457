"""Preprocessing beside weights for libraries without a configuration file: JSON, and torchvision's own operations."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from cgh_bench.backbones.resnet import require_resnet
from cgh_bench.checkpoint import Checkpoint


def transform_fragment(checkpoint: Checkpoint) -> str:
    """What the weights expect of an image, as JSON."""
    architecture = require_resnet(checkpoint.architecture, checkpoint.name)
    document = {
        "name": checkpoint.name,
        "id": checkpoint.id,
        "model": architecture.name,
        "stem": architecture.stem,
        **asdict(checkpoint.preprocessing),
        "formula": "(pixel / 255 * input_range - mean) / std, channels in channel_order",
    }
    return json.dumps(document, indent=2) + "\n"


def input_of(fragment: Path, pixels: Tensor) -> tuple[str, Tensor]:
    """The model's name, and RGB `pixels` (B, 3, H, W), uint8, prepared as `fragment` says by torchvision."""
    given = json.loads(fragment.read_text(encoding="utf-8"))
    scaled = v2.functional.to_dtype(pixels, torch.float32, scale=True) * given["input_range"]
    ordered = scaled[:, [2, 1, 0]] if given["channel_order"] == "BGR" else scaled
    return given["model"], v2.functional.normalize(ordered, given["mean"], given["std"])
