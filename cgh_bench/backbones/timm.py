"""Any network of timm, built by timm's own code from its name and arguments: weights have timm's names."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from cgh_bench.backbones.base import GLOBAL_FEATURE, Architecture, Backbone, Stage, chosen, hypercolumn
from cgh_bench.backbones.wrapped import Transformer, Wrapped, block_outputs
from cgh_bench.core.errors import UserError

Pooling = Literal["head", "cls", "patch_mean"]
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""How timm's networks are told to take images of other sizes, where they can."""


@dataclass(frozen=True)
class Timm(Architecture):
    """What must be known, beside its weights, to build a network of timm (https://github.com/huggingface/pytorch-image-models)."""

    GENERIC: ClassVar[bool] = True
    UNTOLD: ClassVar[Mapping[str, str]] = {"pooling": "the global feature: head, cls or patch_mean"}

    name: str
    """timm's name of the architecture, without the tag of its weights: `convnext_tiny`."""
    arguments: tuple[tuple[str, Any], ...] = ()
    """What else `timm.create_model` is given, sorted by name: `(("img_size", 96),)`."""
    pooling: Pooling = "head"
    """The global feature: what the network's own head pools, the class token, or the mean of the patches."""

    def __post_init__(self) -> None:
        if not _is_known(self.name):
            raise UserError(f"timm has no network {self.name}; `timm.list_models()` lists them (a newer timm has more)")
        object.__setattr__(self, "arguments", tuple(sorted((key, _hashable(value)) for key, value in self.arguments)))

    @classmethod
    def names(cls) -> Iterable[str]:
        """See `Architecture`."""
        from timm import list_models

        return filter(_is_known, list_models())

    @classmethod
    def named(cls, name: str) -> Self | None:
        """See `Architecture`.

        The global feature is what timm pools, but DINOv3's: its authors take the class token
        (https://github.com/facebookresearch/dinov3), where timm's default is the mean of the patches.
        """
        return cls(name, pooling="cls" if "_dinov3" in name else "head") if _is_known(name) else None

    @property
    def image_size(self) -> tuple[int, int]:
        """The size that timm recommends, or the one that the network was built for."""
        return _image_size(self)

    def targets(self, feature: str) -> tuple[str, ...]:
        """What `feature` names, in network order; several are joined by `+`.

        `head` is what the network's own head gives its classifier. Networks of blocks on one grid of tokens have
        `blockN`, `cls` and `patch_mean` beside it, as `ViT` does; others the modules that timm lists as their features
        (`stages.0`, …). `layer4` is the global feature, `pooling`.
        """
        skeleton = self.skeleton
        tokens = () if not isinstance(skeleton, Transformer) else ("cls", "patch_mean")[not skeleton.has_cls :]
        parts = (*skeleton.stages, *tokens, "head")
        return chosen(f"feature of {self.name}", self.pooling if feature == GLOBAL_FEATURE else feature, parts)

    def require_size(self, height: int, width: int) -> None:
        """See `Architecture`; the network itself is asked, without computing anything."""
        if problem := _size_problem(self, height, width):
            usual = "x".join(map(str, self.image_size))
            raise UserError(
                f"{self.name} does not take images of {height}x{width} ({problem}); set the transform's crop (or "
                f"resize) to a size that it takes, say {usual}"
            )

    def timm_arguments(self) -> dict[str, Any]:
        """See `Architecture`."""
        return {"model_name": self.name, **dict(self.arguments)}

    def build(self) -> Backbone:
        """The network, with timm's initial weights."""
        network = self.network(num_classes=0)
        return TokenBackbone(self, network) if _is_of_tokens(network) else MapBackbone(self, network)

    def network(self, **more: Any) -> Any:
        """The network, whole and by timm itself; it takes images of any size, where it can."""
        import timm

        for flexible in _ANY_SIZE:
            try:
                return timm.create_model(self.name, **{**flexible, **dict(self.arguments), **more})
            except TypeError as error:
                if not flexible:
                    raise UserError(f"timm cannot build {self.name} with {dict(self.arguments)}: {error}") from None
        raise AssertionError(self.name)


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
    if _is_of_tokens(network):
        found = block_outputs(network, images)
        return {**found, "head": network.forward_head(found["norm"], pre_logits=True)}
    final, maps = network.forward_intermediates(images)
    stages = {name: maps[number] for name, number in _stage_numbers(network).items()}
    return {**stages, "head": network.forward_head(final, pre_logits=True)}


def _is_of_tokens(network: Any) -> bool:
    """Whether its blocks put out tokens on one grid, after those of class and registers."""
    return "return_prefix_tokens" in inspect.signature(network.forward_intermediates).parameters


def _stage_numbers(network: Any) -> dict[str, int]:
    """The places of its stages in what it puts out; of CrossViT's two branches the first, whose stride is whole."""
    numbers: dict[str, int] = {}
    for number, part in enumerate(network.feature_info):
        numbers.setdefault(part["module"], number)
    return numbers


def _is_known(name: str) -> bool:
    """Whether timm has that network, with a head: some of its encoders (`…_enc`) pool nothing."""
    from timm import is_model  # takes a second

    return bool(is_model(name)) and not name.endswith("_enc")


@cache
def _image_size(architecture: Timm) -> tuple[int, int]:
    from timm.models import get_model_input_config

    network: Any = architecture.skeleton.network
    _, height, width = get_model_input_config(network)["input_size"]
    return height, width


@cache
def _size_problem(architecture: Timm, height: int, width: int) -> str:
    """Why the network cannot take images of that size; empty if it can."""
    network: Any = architecture.skeleton.network
    try:
        with torch.inference_mode():
            final, maps = network.forward_intermediates(torch.empty(1, 3, height, width, device="meta"))
            network.forward_head(final, pre_logits=True)
    except (AssertionError, RuntimeError, ValueError) as error:
        return (str(error).splitlines() or ["its shapes do not fit"])[0]
    for part, found in zip(network.feature_info, maps, strict=True):
        if abs(found.shape[-1] - width / part["reduction"]) > 1:
            return "it resizes them"
    return ""


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        raise UserError(f"an argument of timm.create_model is {value}; accepted: numbers, texts and lists of them")
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


FAMILIES = {"timm": Timm}
