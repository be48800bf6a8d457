"""One flat dictionary of tensors in a file, with the checkpoint's description where loaders ignore it.

In `.safetensors` the description is in the header's metadata; in `.pth` it is in the dictionary's `_metadata`, where
PyTorch keeps the versions of modules and looks up nothing but their names.
"""

from __future__ import annotations

import json
from abc import ABC
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cgh_bench.backbones.resnet import require_resnet
from cgh_bench.checkpoint import DESCRIPTION, Checkpoint, architecture_of, describe, from_description
from cgh_bench.converters.base import Converter
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FlatConverter(Converter, ABC):
    """A target whose file is one dictionary of tensors under its own names."""

    def save(self, checkpoint: Checkpoint, path: Path) -> None:
        """See `Converter`."""
        import safetensors.torch
        import torch

        state = OrderedDict(
            (self.rename(key, checkpoint.architecture), tensor.contiguous())
            for key, tensor in checkpoint.weights.items()
        )
        assert len(state) == len(checkpoint.weights), "two tensors got one name"
        with replacing(path) as temporary:
            if path.suffix == ".safetensors":
                metadata = {"format": "pt", DESCRIPTION: describe(checkpoint)}
                safetensors.torch.save_file(dict(state), temporary, metadata)
            else:
                state._metadata = {DESCRIPTION: describe(checkpoint)}  # type: ignore[attr-defined]
                with temporary.open("wb") as file:
                    torch.save(state, file)

    def read(self, path: Path) -> Checkpoint:
        """See `Converter`; a file with our description is read by that."""
        from cgh_bench.reading.weights_file import open_weights

        file = open_weights(path)
        if DESCRIPTION not in file.facts:
            return super().read(path)
        described = architecture_of(file.facts[DESCRIPTION])
        ours = {self.rename(key, described): key for key in described.shapes}
        unknown = [name for name in file.tensors if name not in ours]
        if unknown:
            raise UserError(f"{path} has {unknown[0]}, which its metadata does not list; convert it again")
        weights = {ours[name]: tensor for name, tensor in file.tensors.items()}
        return from_description(file.facts[DESCRIPTION], weights)


def preprocessing_fragment(checkpoint: Checkpoint) -> str:
    """The preprocessing of a ResNet's weights as JSON, for libraries without a configuration file."""
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
    import torch
    from torchvision.transforms import v2

    given = json.loads(fragment.read_text(encoding="utf-8"))
    scaled = v2.functional.to_dtype(pixels, torch.float32, scale=True) * given["input_range"]
    ordered = scaled[:, [2, 1, 0]] if given["channel_order"] == "BGR" else scaled
    return given["model"], v2.functional.normalize(ordered, given["mean"], given["std"])
