"""Our own backbone inside a framework's network: same code, same weights, the maps of its `pyramid`.

A framework's process imports this, the file of the backbone's family and that family's library, nothing else of ours.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cgh_bench import backbones, checkpoint
from cgh_bench.backbones import Architecture
from cgh_bench.core.errors import UserError
from cgh_bench.networks.base import Backbone

STRIDES = (4, 8, 16, 32)
"""Pixels of the image per position of the maps that detectors and segmentation networks read."""
KINDS = {
    "any": "maps at strides 4, 8, 16 and 32 (ResNet, ConvNeXt, Swin, …) or patches of 6 to 22 pixels (ViT, …)",
    "single-scale": "patches of 6 to 22 pixels (ViT, DINOv2, …)",
    "multi-scale": "maps at strides 4, 8, 16 and 32 (ResNet, ConvNeXt, Swin, …)",
}
"""The backbones that a protocol for more than one architecture takes."""


@dataclass(frozen=True)
class Layout:
    """Which maps of a backbone a framework gets."""

    stages: tuple[str, ...]
    """Four of `Backbone.stages`: those at `STRIDES`; of equal stride the blocks at 1/3, 1/2, 2/3 and the end."""
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    shrink: float = 1.0
    """What both sides of an image are multiplied by, so that a patch (of 14) covers a stride (of 16) exactly."""

    @property
    def is_single_scale(self) -> bool:
        """Whether all maps have one stride."""
        return len(set(self.strides)) == 1


def layout(architecture: Architecture) -> Layout | None:
    """The maps of `architecture`; None if it has neither the strides nor the patches that `KINDS` names."""
    stages = architecture.skeleton.stages
    last = {stage.stride: name for name, stage in stages.items()}
    if set(STRIDES) <= last.keys():
        names = tuple(last[stride] for stride in STRIDES)
        return Layout(names, tuple(stages[name].channels for name in names), STRIDES)
    (patch, *others) = last
    stride = 2 ** round(math.log2(patch))
    if others or stride not in (8, 16):
        return None
    every = list(stages)
    names = tuple(every[max(1, round(len(every) * part)) - 1] for part in (1 / 3, 1 / 2, 2 / 3, 1))
    channels = tuple(stages[name].channels for name in names)
    return Layout(names, channels, (stride,) * len(names), patch / stride)


def require(architecture: Architecture, kind: str, what: str) -> Layout:
    """The maps of an architecture that a protocol takes.

    Args:
        architecture: of the backbone.
        kind: one of `KINDS`.
        what: the protocol, for the message.

    Raises:
        UserError: the protocol cannot take its strides, its patches, its image sizes, or layers without padding.
    """
    found = layout(architecture) if architecture.IN_DETECTORS else None
    if found is None or kind not in ("any", "single-scale" if found.is_single_scale else "multi-scale"):
        strides = ", ".join(map(str, dict.fromkeys(stage.stride for stage in architecture.skeleton.stages.values())))
        raise UserError(f"{what} does not accept {architecture.name} (stride {strides}); accepted: {KINDS[kind]}")
    try:
        for height in (256, 320):  # frameworks pad images to multiples of 32
            architecture.require_size(round(height * found.shrink), round(256 * found.shrink))
    except UserError:
        only = "x".join(map(str, architecture.image_size))
        raise UserError(
            f"{what} uses images of many sizes, but {architecture.name} accepts only {only}; accepted: "
            "backbones that accept any multiple of 32 or of their patch size"
        ) from None
    if not found.is_single_scale:
        _require_padded(architecture, found, what)
    return found


def _require_padded(architecture: Architecture, found: Layout, what: str) -> None:
    """Refuse maps that are smaller than an image divided by their stride: boxes and pixels would be shifted."""
    side = 8 * STRIDES[-1]
    with torch.inference_mode():
        maps = architecture.skeleton.pyramid(torch.empty(1, 3, side, side, device="meta"))
    for stage, stride in zip(found.stages, found.strides, strict=True):
        if (rows := maps[stage].shape[2]) != side // stride:
            raise UserError(
                f"{what} cannot take {architecture.name}: of an image of {side} pixels {stage} has {rows} rows, not "
                f"{side // stride}, since its layers are not padded; accepted: backbones whose maps are an image's "
                "size divided by their stride"
            )


def architecture_of(named: str) -> Architecture:
    """The architecture of a canonical file (`.safetensors`), or of that name."""
    if Path(named).suffix != ".safetensors":
        return backbones.named(named)
    with safetensors.safe_open(named, "pt") as file:
        return checkpoint.architecture_of(file.metadata()["checkpoint"])


def fine_tuned(weights: Path, source: str, protocol: str) -> dict[str, str]:
    """What a file of fine-tuned weights says of its backbone, so that it is read back: {name of the entry: JSON}.

    Args:
        weights: the canonical file that was carried.
        source: the framework, as `cgh-bench list sources` names it.
        protocol: the name of the protocol.
    """
    with safetensors.safe_open(weights, "pt") as file:
        description = json.loads(file.metadata()["checkpoint"])
    description["name"] += f"-{protocol}"
    description["origin"] = {"source": source, "properties": description["origin"]["properties"]}
    return {checkpoint.DESCRIPTION: json.dumps(description)}


class Carried(nn.Module):
    """A backbone of ours that returns four maps, (B, C, h, w) each; its weights are those below `network`.

    Args:
        architecture: a canonical file, or the name of an architecture (for descriptions of a protocol).
        drop_path: how often the branches of the last block are left out in training (https://arxiv.org/abs/1603.09382);
            of the first never, in between linearly.
        frozen: whether nothing of it is trained, BatchNorm's statistics included.
    """

    def __init__(self, architecture: str, drop_path: float = 0.0, frozen: bool = False) -> None:
        super().__init__()
        given = architecture_of(architecture)
        self.layout = require(given, "any", "this protocol")
        self.network: Backbone = given.build()
        if torch.distributed.is_initialized() and torch.cuda.is_available():  # the whole step's statistics, as on one
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        self.frozen = frozen
        self.network.requires_grad_(not frozen)
        if drop_path:
            set_drop_path(self.network, drop_path)

    def train(self, mode: bool = True) -> "Carried":
        """As in torch, but a frozen network stays as it is in evaluation."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps of `images` (B, 3, H, W), whose sides are multiples of 32."""
        if self.layout.shrink != 1:
            height, width = (round(side * self.layout.shrink) for side in images.shape[-2:])
            images = interpolate(images, (height, width), mode="bilinear", antialias=True)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.network.pyramid(images)
        return tuple(maps[stage] for stage in self.layout.stages)


class _DropPath(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        kept = branch.new_empty((len(branch),) + (1,) * (branch.ndim - 1)).bernoulli_(1 - self.rate)
        return branch * kept / (1 - self.rate)


def set_drop_path(network: nn.Module, rate: float) -> None:
    """Leave out branches of residual blocks in training, those of the last block with probability `rate`.

    Raises:
        UserError: the network's blocks have no place for it.
    """
    places = [
        (block, name)
        for block in network.modules()
        for name, _ in block.named_children()
        if name.startswith("drop_path")
    ]
    blocks = list(dict.fromkeys(block for block, _ in places))
    if not blocks:
        raise UserError(f"the protocol's drop path of {rate:g} cannot be set: {type(network).__name__} has none")
    for block, name in places:
        dropping = _DropPath(rate * blocks.index(block) / max(1, len(blocks) - 1))
        setattr(block, name, dropping.train(block.training))


def rate_factors(carried: Carried, decay: float, by_stage: bool = False, layers: int | None = None) -> dict[str, float]:
    """What each parameter's learning rate is multiplied by, {name within `carried`: decay^(layers + 1 - its layer)}.

    Args:
        carried: the backbone.
        decay: from one layer to the one before it.
        by_stage: whether a layer is a stage, not a block.
        layers: how many there are, if the protocol says another number than the network's own.
    """
    numbers = carried.network.layers(by_stage)
    top = 1 + (layers or max(numbers.values()))
    return {f"network.{name}": decay ** (top - number) for name, number in numbers.items()}
