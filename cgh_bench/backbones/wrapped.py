"""Backbones around another library's network: its tensors keep their names; transformers share their features."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cgh_bench.backbones.base import GLOBAL_FEATURE, Backbone, Stage, Tokens


class Wrapped(Backbone):
    """A backbone whose weights are those of `network`, under the names that they have there."""

    network: Any

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """See `nn.Module`: the network's."""
        found: dict[str, Any] = self.network.state_dict(*args, **options)
        return found

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}network.{key[len(prefix) :]}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Transformer(Wrapped):
    """A network of blocks on one grid of patch tokens, in timm's form (`forward_intermediates`).

    Args:
        network: without its classifier and its pooling.
        has_cls: whether the first of its prefix tokens is a class token.
    """

    def __init__(self, network: nn.Module, has_cls: bool) -> None:
        super().__init__()
        self.network = network
        self.has_cls = has_cls
        self.patch = int(network.feature_info[-1]["reduction"])  # type: ignore[index]
        channels = int(network.feature_info[-1]["num_chs"])  # type: ignore[index]
        blocks = range(1, len(network.blocks) + 1)  # type: ignore[arg-type]
        self.stages = {f"block{number}": Stage(channels, self.patch) for number in blocks}

    def global_and_pyramid(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The global feature, and the patch tokens after each block and the final norm, as if the network ended there.

        See `Backbone.global_and_pyramid`.
        """
        patches, prefixes = self._blocks(images, range(len(self.stages)))
        rows, columns = self._grid(images)
        maps = {
            stage: tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns)
            for stage, tokens in zip(self.stages, patches, strict=True)
        }
        (part,) = self.architecture.targets(GLOBAL_FEATURE)
        return self._part(part, dict(enumerate(patches)), dict(enumerate(prefixes))), maps

    def tokens(self, images: Tensor) -> Tokens:
        """See `Backbone.tokens`."""
        (patches,), (prefix,) = self._blocks(images, [len(self.stages) - 1])
        first = int(self.has_cls)
        return Tokens(patches, self._grid(images), prefix[:, 0] if self.has_cls else None, prefix[:, first:])

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """All tokens after each block, and after the final norm: `{"block1": (B, tokens, D), …, "norm": …}`."""
        self.architecture.require_size(*images.shape[-2:])
        return block_outputs(self.network, images)

    def width(self, targets: tuple[str, ...]) -> int:
        """See `Backbone.width`."""
        return next(iter(self.stages.values())).channels * len(targets)

    def pooled_all(self, images: Tensor, targets: Sequence[tuple[str, ...]]) -> list[Tensor]:
        """See `Backbone.pooled_all`; the parts of a feature stand side by side."""
        last = len(self.stages) - 1
        numbers = sorted({*(_block(part, last) for part in chain.from_iterable(targets)), last})
        patches, prefixes = (dict(zip(numbers, found, strict=True)) for found in self._blocks(images, numbers))
        return [torch.cat([self._part(part, patches, prefixes) for part in parts], dim=1) for parts in targets]

    def _part(self, part: str, patches: dict[int, Tensor], prefixes: dict[int, Tensor]) -> Tensor:
        """`cls`, `patch_mean`, or what the class token (the mean, without one) would be after `blockN`."""
        block = _block(part, len(self.stages) - 1)
        if part == "patch_mean" or not self.has_cls:
            return patches[block].mean(dim=1)
        return prefixes[block][:, 0]

    def _grid(self, images: Tensor) -> tuple[int, int]:
        return images.shape[-2] // self.patch, images.shape[-1] // self.patch

    def _blocks(self, images: Tensor, numbers: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """The patch tokens (B, N, D) and the prefix tokens (B, P, D) after the blocks `numbers` and the final norm."""
        self.architecture.require_size(*images.shape[-2:])
        found = _intermediates(self.network, images, indices=list(numbers), norm=True)
        return found["image_intermediates"], found["image_intermediates_prefix"]


def _block(part: str, last: int) -> int:
    """The number, from 0, of the block that a part of a feature is taken after."""
    return int(part[5:]) - 1 if part.startswith("block") else last


def _intermediates(network: Any, images: Tensor, **how: Any) -> dict[str, Any]:
    """The dictionary of what blocks put out, prefix tokens (class, registers) and patches apart."""
    found: dict[str, Any] = network.forward_intermediates(
        images, output_fmt="NLC", output_dict=True, return_prefix_tokens=True, **how
    )
    patches = found["image_intermediates"]
    found.setdefault("image_intermediates_prefix", [tokens[:, :0] for tokens in patches])
    return found


def block_outputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """All tokens of timm's `network` after each block and after the final norm, (B, tokens, D)."""
    found = _intermediates(network, images)
    outputs = {
        f"block{number}": torch.cat(parts, dim=1)
        for number, parts in enumerate(
            zip(found["image_intermediates_prefix"], found["image_intermediates"], strict=True), start=1
        )
    }
    return {**outputs, "norm": found["image_features"]}
