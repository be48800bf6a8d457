"""Networks of timm behind the contract: of tokens or of maps."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cgh_bench.networks.base import Backbone, Stage, hypercolumn
from cgh_bench.networks.wrapped import Transformer, Wrapped, block_outputs

if TYPE_CHECKING:
    from cgh_bench.backbones.timm import Timm


def built(architecture: Timm) -> Backbone:
    """The network, with timm's initial weights."""
    network = architecture.network(num_classes=0)
    return TokenBackbone(architecture, network) if is_of_tokens(network) else MapBackbone(architecture, network)


class TokenBackbone(Transformer):
    """A network of timm whose blocks work on one grid of tokens: ViT, DINOv3, EVA, BEiT, …"""

    def __init__(self, architecture: Timm, network: nn.Module) -> None:
        super().__init__(network)
        self.architecture = architecture

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """See `Backbone.outputs` and `outputs`."""
        return outputs(self.network, images)


class MapBackbone(Wrapped):
    """A network of timm of which each part puts out a map: ConvNeXt, Swin, EfficientNet, …"""

    def __init__(self, architecture: Timm, network: nn.Module) -> None:
        super().__init__()
        self.architecture, self.network = architecture, network
        self._numbers = _stage_numbers(network)
        listed: Any = network.feature_info
        self.stages = {
            name: Stage(listed[number]["num_chs"], listed[number]["reduction"])
            for name, number in self._numbers.items()
        }

    def global_and_pyramid(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Backbone.global_and_pyramid`."""
        final, maps = self._maps(images, list(self.stages))
        return self.network.forward_head(final, pre_logits=True), maps

    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        """See `Backbone.pyramid`."""
        return self._maps(images, list(self.stages))[1]

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """See `Backbone.outputs` and `outputs`."""
        return outputs(self.network, images)

    def width(self, targets: tuple[str, ...]) -> int:
        """See `Backbone.width`."""
        head = int(self.network.head_hidden_size)
        return sum(head if part == "head" else self.stages[part].channels for part in targets)

    def pooled_all(self, images: Tensor, targets: Sequence[tuple[str, ...]]) -> list[Tensor]:
        """See `Backbone.pooled_all`; the head's feature stands beside the mean of the stages' hypercolumn."""
        wanted = set(chain.from_iterable(targets))
        final, maps = self._maps(images, [stage for stage in self.stages if stage in wanted])
        found = []
        for parts in targets:
            stages = tuple(part for part in parts if part in maps)
            features = [hypercolumn(maps, stages).mean(dim=(2, 3))] if stages else []
            features += [self.network.forward_head(final, pre_logits=True)] if "head" in parts else []
            found.append(torch.cat(features, dim=1))
        return found

    def _maps(self, images: Tensor, stages: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """What the head pools, and the maps of `stages`."""
        self.architecture.require_size(*images.shape[-2:])
        if not stages:
            return self.network.forward_features(images), {}
        final, maps = self.network.forward_intermediates(images, indices=[self._numbers[stage] for stage in stages])
        return final, dict(zip(stages, maps, strict=True))


def outputs(network: Any, images: Tensor) -> dict[str, Tensor]:
    """What each part of timm's `network` puts out, and what its head gives the classifier: {…, "head": (B, D)}."""
    if is_of_tokens(network):
        found = block_outputs(network, images)
        return {**found, "head": network.forward_head(found["norm"], pre_logits=True)}
    final, maps = network.forward_intermediates(images)
    stages = {name: maps[number] for name, number in _stage_numbers(network).items()}
    return {**stages, "head": network.forward_head(final, pre_logits=True)}


def is_of_tokens(network: Any) -> bool:
    """Whether its blocks put out tokens on one grid, after those of class and registers."""
    return "return_prefix_tokens" in inspect.signature(network.forward_intermediates).parameters


def _stage_numbers(network: Any) -> dict[str, int]:
    """The places of its stages in what it puts out, but of parts without a name (TResNet's stem).

    Of CrossViT's two branches the first, whose stride is whole.
    """
    numbers: dict[str, int] = {}
    for number, part in enumerate(network.feature_info):
        if part["module"]:
            numbers.setdefault(part["module"], number)
    return numbers


@cache
def image_size(architecture: Timm) -> tuple[int, int]:
    """The height and width that timm recommends."""
    from timm.models import get_model_input_config

    network: Any = architecture.skeleton.network
    _, height, width = get_model_input_config(network)["input_size"]
    return height, width


_NEEDS_VALUES = "Tensor.item() cannot be called on meta tensors"
"""Gemma 4's networks read the grid of their patches from values, after they have taken the images."""


@cache
def size_problem(architecture: Timm, height: int, width: int) -> str:
    """Why the network cannot take images of that size; empty if it can."""
    network: Any = architecture.skeleton.network
    usual = image_size(architecture)
    try:
        sides, usual_sides = (_widths(architecture, *size) for size in ((height, width), usual))
    except (AssertionError, RuntimeError, ValueError) as error:
        problem = (str(error).splitlines() or ["its shapes do not fit"])[0]
        return "" if problem == _NEEDS_VALUES else problem
    for part, side, usual_side in zip(network.feature_info, sides, usual_sides, strict=True):
        grown = (width - usual[1]) / part["reduction"]  # what is not padded loses as much at any size
        if part["module"] and abs(side - usual_side - grown) > max(1, 0.02 * side):
            return "it resizes them"
    return ""


@cache
def _widths(architecture: Timm, height: int, width: int) -> tuple[int, ...]:
    """The widths of all maps of images of that size, found without computing anything."""
    network: Any = architecture.skeleton.network
    with torch.inference_mode():
        final, maps = network.forward_intermediates(torch.empty(1, 3, height, width, device="meta"))
        network.forward_head(final, pre_logits=True)
    return tuple(found.shape[-1] for found in maps)
