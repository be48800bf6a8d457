"""Networks of Hugging Face's transformers behind the contract."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cgh_bench.networks.base import Stage, Tokens, hypercolumn, without_memory
from cgh_bench.networks.wrapped import Wrapped

if TYPE_CHECKING:
    from cgh_bench.backbones.transformers import Transformers


class TransformersBackbone(Wrapped):
    """A network of transformers, of tokens (ViT, DINOv2, SigLIP, …) or of maps (ConvNeXt, Swin, …)."""

    def __init__(self, architecture: Transformers) -> None:
        super().__init__()
        self.architecture = architecture
        self.network = architecture.network()
        self.stages, self.ends, self.head_width = _layout(architecture)

    def global_and_pyramid(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Backbone.global_and_pyramid`."""
        found = self._run(images, maps=True)
        maps = dict(zip(self.stages, _maps(found, images, self._patch), strict=True))
        (part,) = self.architecture.global_targets
        return self._part(part, found, images), maps

    def tokens(self, images: Tensor) -> Tokens:
        """See `Backbone.tokens`."""
        if self._patch == 0:
            return super().tokens(images)
        final = self._run(images, maps=False).last_hidden_state
        grid = (images.shape[-2] // self._patch, images.shape[-1] // self._patch)
        prefix = final.shape[1] - grid[0] * grid[1]
        return Tokens(final[:, prefix:], grid, final[:, 0] if prefix else None, final[:, 1 if prefix else 0 : prefix])

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """See `Backbone.outputs` and `outputs`."""
        return outputs(self.network, images)

    def width(self, targets: tuple[str, ...]) -> int:
        """See `Backbone.width`."""
        last = list(self.stages.values())[-1].channels
        widths = {"head": self.head_width, "cls": last, "patch_mean": last}
        return sum(widths[part] if part in widths else self.stages[part].channels for part in targets)

    def pooled_all(self, images: Tensor, targets: Sequence[tuple[str, ...]]) -> list[Tensor]:
        """See `Backbone.pooled_all`."""
        found = self._run(images, maps=any(part in self.stages for part in chain.from_iterable(targets)))
        if self._patch:
            return [torch.cat([self._part(part, found, images) for part in parts], dim=1) for parts in targets]
        pooled = []
        for parts in targets:
            stages = tuple(part for part in parts if part in self.stages)
            features = []
            if stages:
                maps = dict(zip(self.stages, _maps(found, images, 0), strict=True))
                features.append(hypercolumn(maps, stages).mean(dim=(2, 3)))
            features += [self._part(part, found, images) for part in parts if part not in stages]
            pooled.append(torch.cat(features, dim=1))
        return pooled

    def _part(self, part: str, found: Any, images: Tensor) -> Tensor:
        """A pooled part; of a block the class token, or the mean of patches without one."""
        if part == "head":
            return found.pooler_output.flatten(1)
        number = list(self.stages).index(part) + 1 if part in self.stages else 0
        tokens: Tensor = found.hidden_states[number] if number else found.last_hidden_state
        grid = (images.shape[-2] // self._patch) * (images.shape[-1] // self._patch)
        prefix = tokens.shape[1] - grid
        return tokens[:, prefix:].mean(dim=1) if part == "patch_mean" or not prefix else tokens[:, 0]

    @property
    def _patch(self) -> int:
        """The side of a patch where blocks put out tokens on one grid, else 0."""
        first = next(iter(self.stages))
        return self.stages[first].stride if first == "block1" else 0

    def _run(self, images: Tensor, maps: bool) -> Any:
        self.architecture.require_size(*images.shape[-2:])
        return _run(self.network, images, maps)


def outputs(network: Any, images: Tensor) -> dict[str, Tensor]:
    """Everything that a `network` puts out for `images`: after each block or stage, at its end, and pooled."""
    found = _run(network, images, maps=True)
    stages = {f"hidden{number}": each for number, each in enumerate(found.hidden_states[1:], start=1)}
    head = found.get("pooler_output")
    return {**stages, "norm": found.last_hidden_state, **({} if head is None else {"head": head})}


def _run(network: Any, images: Tensor, maps: bool) -> Any:
    accepted = inspect.signature(network.forward).parameters
    given: dict[str, Any] = {"pixel_values": images, "output_hidden_states": maps}
    if "interpolate_pos_encoding" in accepted:
        given["interpolate_pos_encoding"] = True
    if network.config.model_type == "vit_mae":  # it shuffles the patches by the noise
        patches = (images.shape[-2] // network.config.patch_size) * (images.shape[-1] // network.config.patch_size)
        given["noise"] = torch.arange(patches, device=images.device).expand(len(images), -1)
    if "spatial_shapes" in accepted:  # SigLIP 2 takes patches, so that images can have any shape
        patch = network.config.patch_size
        rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
        cut = images.reshape(len(images), -1, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
        given["pixel_values"] = cut.reshape(len(images), rows * columns, -1)
        given["pixel_attention_mask"] = None  # nothing is padded
        given["spatial_shapes"] = torch.tensor([[rows, columns]] * len(images), device="cpu")
    found = network(**given)
    if network.config.model_type == "hiera" and maps:  # its maps are channels last
        found.reshaped_hidden_states = tuple(each.permute(0, 3, 1, 2) for each in found.reshaped_hidden_states)
    return found


def _maps(found: Any, images: Tensor, patch: int) -> list[Tensor]:
    """The map (B, C, h, w) after each block of tokens, or after each stage."""
    if not patch:
        return list((found.get("reshaped_hidden_states") or found.hidden_states)[1:])
    rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
    return [
        tokens[:, -rows * columns :].transpose(1, 2).reshape(len(tokens), -1, rows, columns)
        for tokens in found.hidden_states[1:]
    ]


@cache
def _layout(architecture: Transformers) -> tuple[dict[str, Stage], tuple[str, ...], int]:
    """The stages, what stands at the end (`cls`, `patch_mean`, `head`; the global feature last), the head's width."""
    height, width = architecture.image_size
    images = torch.empty(1, 3, height, width, device="meta")
    with without_memory():
        network = architecture.network().eval()
    with torch.inference_mode():
        found = _run(network, images, maps=True)
    hidden = found.hidden_states[1:]
    is_of_tokens = hidden[0].ndim == 3 and not found.get("reshaped_hidden_states")
    patch = int(architecture.configuration.patch_size) if is_of_tokens else 0
    maps = _maps(found, images, patch)
    named = "block" if patch else "stage"
    stages = {
        f"{named}{number}": Stage(each.shape[1], height // each.shape[2]) for number, each in enumerate(maps, start=1)
    }
    head = found.get("pooler_output")
    has_cls = bool(patch) and hidden[0].shape[1] > (height // patch) * (width // patch)
    ends = ("patch_mean", "cls")[: 1 + has_cls] if patch else ()
    return stages, (*ends, *(() if head is None else ("head",))), 0 if head is None else head.flatten(1).shape[1]


@cache
def size_problem(architecture: Transformers, height: int, width: int) -> str:
    """Why the network cannot take images of that size; empty if it can."""
    backbone = architecture.skeleton
    assert isinstance(backbone, TransformersBackbone)
    assert isinstance(backbone.network, nn.Module)
    multiple = next(iter(backbone.stages.values())).stride if "block1" in backbone.stages else 1
    if height % multiple or width % multiple:
        return f"not multiples of {multiple}"
    try:
        with torch.inference_mode():
            _run(backbone.network, torch.empty(1, 3, height, width, device="meta"), maps=False)
    except (AssertionError, RuntimeError, ValueError) as error:
        return (str(error).splitlines() or ["its shapes do not fit"])[0]
    return ""
