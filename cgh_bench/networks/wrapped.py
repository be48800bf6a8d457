"""Backbones around another library's network: its tensors keep their names; transformers share their features."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cgh_bench.networks.base import Backbone, Stage, Tokens


class Wrapped(Backbone):
    """A backbone whose weights are those of `network`, under the names that they have there."""

    network: Any

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """See `nn.Module`: the network's."""
        return self.network.state_dict(*args, **options)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}network.{key[len(prefix) :]}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Transformer(Wrapped):
    """A network of blocks on one grid of patch tokens, in timm's form (`forward_intermediates`).

    Args:
        network: without its classifier.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.prefix = int(network.num_prefix_tokens)  # type: ignore[arg-type]
        self.has_cls = getattr(network, "cls_token", None) is not None
        self.patch = int(network.feature_info[-1]["reduction"])  # type: ignore[index]
        channels = int(network.feature_info[-1]["num_chs"])  # type: ignore[index]
        blocks = range(1, len(network.feature_info) + 1)  # type: ignore[arg-type]
        self.stages = {f"block{number}": Stage(channels, self.patch) for number in blocks}

    def global_and_pyramid(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The global feature, and the patch tokens after each block and the final norm, as if the network ended there.

        See `Backbone.global_and_pyramid`.
        """
        final, blocks = self._blocks(images, list(self.stages))
        rows, columns = self._grid(images)
        maps = {
            stage: tokens[:, self.prefix :].transpose(1, 2).reshape(len(tokens), -1, rows, columns)
            for stage, tokens in blocks.items()
        }
        return self._parts(self.architecture.global_targets, final, blocks), maps

    def tokens(self, images: Tensor) -> Tokens:
        """See `Backbone.tokens`."""
        final, _ = self._blocks(images, [])
        first = int(self.has_cls)
        cls = final[:, 0] if self.has_cls else None
        return Tokens(final[:, self.prefix :], self._grid(images), cls, final[:, first : self.prefix])

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """All tokens after each block, and after the final norm: `{"block1": (B, tokens, D), …, "norm": …}`."""
        self.architecture.require_size(*images.shape[-2:])
        return block_outputs(self.network, images)

    def width(self, targets: tuple[str, ...]) -> int:
        """See `Backbone.width`."""
        head = int(getattr(self.network, "head_hidden_size", 0))
        return sum(head if part == "head" else self.stages["block1"].channels for part in targets)

    def pooled_all(self, images: Tensor, targets: Sequence[tuple[str, ...]]) -> list[Tensor]:
        """See `Backbone.pooled_all`; the parts of a feature stand side by side."""
        wanted = set(chain.from_iterable(targets))
        final, blocks = self._blocks(images, [stage for stage in self.stages if stage in wanted])
        return [self._parts(parts, final, blocks) for parts in targets]

    def _parts(self, parts: tuple[str, ...], final: Tensor, blocks: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([self._part(part, final, blocks) for part in parts], dim=1)

    def _part(self, part: str, final: Tensor, blocks: Mapping[str, Tensor]) -> Tensor:
        """`head`, `cls`, `patch_mean`, or what the class token (the mean, without one) would be after `blockN`."""
        if part == "head":
            return self.network.forward_head(final, pre_logits=True)
        tokens = blocks.get(part, final)
        return tokens[:, self.prefix :].mean(dim=1) if part == "patch_mean" or not self.has_cls else tokens[:, 0]

    def _grid(self, images: Tensor) -> tuple[int, int]:
        return images.shape[-2] // self.patch, images.shape[-1] // self.patch

    def _blocks(self, images: Tensor, stages: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """All tokens (B, prefix + N, D) of the network, and of each of its first blocks, after the final norm."""
        self.architecture.require_size(*images.shape[-2:])
        if not stages:
            return self.network.forward_features(images), {}
        final, found = _intermediates(self.network, images, [int(stage[5:]) - 1 for stage in stages], norm=True)
        return final, dict(zip(stages, found, strict=True))


def _intermediates(
    network: Any, images: Tensor, numbers: Sequence[int] | None, norm: bool
) -> tuple[Tensor, list[Tensor]]:
    """All tokens (B, prefix + N, D) of the network and of each of the blocks `numbers`, from 0 (None: of all)."""
    has_prefix = network.num_prefix_tokens > 0
    final, found = network.forward_intermediates(
        images, indices=numbers, norm=norm, output_fmt="NLC", return_prefix_tokens=has_prefix
    )
    return final, [torch.cat([prefix, patches], dim=1) for patches, prefix in found] if has_prefix else found


def block_outputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """All tokens of timm's `network` after each block and after the final norm, (B, tokens, D)."""
    final, found = _intermediates(network, images, None, norm=False)
    return {**{f"block{number}": tokens for number, tokens in enumerate(found, start=1)}, "norm": final}
