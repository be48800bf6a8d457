"""detectron2: a `.pkl` or `.pth` for `MODEL.WEIGHTS`, matched by its heuristics in C4 and FPN detectors alike."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cgh_bench.backbones import resnet_names as naming
from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.resnet import ResNet, require_resnet
from cgh_bench.checkpoint import COUNTERS, DESCRIPTION, Checkpoint, describe
from cgh_bench.converters import parity
from cgh_bench.converters.base import Converter
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing
from cgh_bench.foreign import frameworks

if TYPE_CHECKING:
    from torch import Tensor

_NOTE = """# Preprocessing and backbone that {weights} needs: cfg.merge_from_file() this after your protocol's file.
# Written by `cgh-bench convert` for {name} ({id}).
# MODEL.WEIGHTS is relative to the folder that training starts in; give the whole path where that is another.
"""


@dataclass(frozen=True)
class Detectron2(Converter):
    """For detectron2: detectron2's names, as NumPy arrays in a pickle (`.pkl`) or tensors (`.pth`).

    Its frozen norms have no batch counters; these are stored beside the model, so that reading back restores them.
    """

    BESIDE: ClassVar[str] = "`OUT.config.yaml`: pixel mean and std, format, depth, width, stride"
    FAMILY: ClassVar = ResNet

    name: str = "detectron2"
    suffixes: tuple[str, ...] = (".pkl", ".pth")

    def rename(self, key: str, architecture: Architecture) -> str:
        """Its name for our `key`."""
        return naming.detectron2(key)

    def require_supported(self, checkpoint: Checkpoint) -> None:
        """Refuse what its `build_resnet_backbone` cannot build."""
        architecture = require_resnet(checkpoint.architecture, self.name)
        if architecture.stem != "imagenet":
            raise UserError(f"detectron2 has no {architecture.stem} stem; accepted: networks with the imagenet stem")

    def save(self, checkpoint: Checkpoint, path: Path) -> None:
        """See `Converter`."""
        import torch

        weights = {self.rename(k, checkpoint.architecture): v for k, v in checkpoint.weights.items() if not _counts(k)}
        document: dict[str, Any] = {
            "model": weights,
            "__author__": "cgh-bench",
            "matching_heuristics": True,
            DESCRIPTION: describe(checkpoint),
            COUNTERS: {key: int(tensor) for key, tensor in checkpoint.weights.items() if _counts(key)},
        }
        with replacing(path) as temporary, temporary.open("wb") as file:
            if path.suffix == ".pkl":
                arrays = {name: tensor.contiguous().numpy() for name, tensor in weights.items()}
                pickle.dump({**document, "model": arrays}, file, protocol=4)
            else:
                torch.save(document, file)

    def fragments(self, checkpoint: Checkpoint, path: Path) -> dict[str, str]:
        """The part of a configuration that the weights imply, as YAML, by file name."""
        tree: dict[str, Any] = {"MODEL": {"WEIGHTS": path.name}}
        for key, value in frameworks.detectron2_settings(checkpoint).items():
            *parents, leaf = key.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = value
        note = _NOTE.format(weights=path.name, name=checkpoint.name, id=checkpoint.id)
        return {f"{path.name}.config.yaml": note + "\n".join(_yaml(tree)) + "\n"}

    def require_installed(self) -> None:
        """See `Converter`."""
        frameworks.require_installed(self.name)

    def outputs(self, path: Path, pixels: Tensor) -> parity.Outputs:
        """What its network makes of RGB `pixels`, preprocessed and built as the fragment beside says."""
        return parity.foreign_outputs(self.name, path, path.with_name(f"{path.name}.config.yaml"), pixels)


def _counts(key: str) -> bool:
    return key.endswith(naming.COUNTER)


def _yaml(tree: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in sorted(tree.items()):
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_yaml(value, f"{indent}  ")]
        else:
            lines.append(f"{indent}{key}: {json.dumps(value)}")
    return lines


CONVERTERS = {"detectron2": Detectron2()}
