"""An architecture is a value: it says everything about a network that its tensors do not, and builds it.

What it builds is a `networks.base.Backbone`. A family is one file of this package (its values; importing them loads no
torch) and one of `networks` (its modules).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

from cgh_bench.core import config
from cgh_bench.core.errors import UserError, unknown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cgh_bench.networks.base import Backbone

GLOBAL_FEATURE = "layer4"
"""The global feature of a backbone of any family. The name is a ResNet's, because protocol ids contain it."""
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "quick_gelu", "silu")
"""Activations by timm's names."""


class Architecture(ABC):
    """What must be known, beside its weights, to build a backbone. Subclasses are frozen dataclasses."""

    RECORDED_AS: ClassVar[str] = ""
    """The name of the class in records and ids, where that is not its own."""
    BUILDS_ON_META: ClassVar[bool] = False
    """Whether all of the network's state is in its weights, so that it can be built without memory and filled."""
    LIBRARY: ClassVar[str] = ""
    """The library that built the network and can write it itself, weights and configuration."""
    GENERIC: ClassVar[bool] = False
    """Whether the family builds networks of any kind; names go to the others first."""
    IN_DETECTORS: ClassVar[str] = "carried"
    """How its networks get into detection and segmentation frameworks: `carried` (our own code in the framework's
    network), `native` (converted to the framework's own); empty: not at all."""
    UNTOLD: ClassVar[Mapping[str, str]] = {}
    """The properties that no tensor tells (`stem.padding`), each with what its values mean; a property is the field of
    that name, with `_` for the dot."""

    name: str

    @classmethod
    def names(cls) -> Iterable[str]:
        """The names that users can type, for lists and for the nearest name of a mistyped one."""
        return ()

    @classmethod
    def named(cls, name: str) -> Self | None:
        """The usual architecture of that name, or None if the family has none."""
        return None

    @abstractmethod
    def build(self) -> Backbone:
        """The network, with its library's initial weights."""

    @abstractmethod
    def targets(self, feature: str) -> tuple[str, ...]:
        """The parts that `feature` names, in network order; several are joined by `+`.

        `layer4` names the global feature in every family.

        Raises:
            UserError: there is no such part (the nearest names are given).
        """

    @property
    def global_targets(self) -> tuple[str, ...]:
        """The parts of the global feature."""
        return self.targets(GLOBAL_FEATURE)

    @property
    def identity(self) -> str:
        """What the ids of checkpoints are made of; later fields at their default are left out."""
        kept = [f"{name}={value!r}" for name, value in self.recorded().items()]
        return f"{self.RECORDED_AS or type(self).__name__}({', '.join(kept)})"

    def recorded(self) -> dict[str, Any]:
        """The fields that ids and files have."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type] # subclasses are dataclasses
        values = [(field, getattr(self, field.name)) for field in fields if field.repr]
        return {field.name: value for field, value in values if config.counts(field, value)}

    @property
    def untold(self) -> tuple[str, ...]:
        """The names of `UNTOLD` that make a difference to this architecture."""
        return tuple(self.UNTOLD)

    def value(self, name: str) -> Any:
        """The property `name` of `UNTOLD`."""
        return getattr(self, name.replace(".", "_"))

    def having(self, **values: Any) -> Self:
        """The same with other values of properties, the dot of their names as `_`.

        Raises:
            UserError: no network has such values.
        """
        return dataclasses.replace(self, **values)  # type: ignore[type-var]

    @property
    def skeleton(self) -> Backbone:
        """The network on the meta device: names, shapes and stages without memory."""
        return _skeleton(self)

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The names and shapes of the backbone's tensors."""
        return _shapes(self)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of images that the network surely accepts."""
        return 224, 224

    def width(self, targets: tuple[str, ...]) -> int:
        """The width D of what `Backbone.pooled` returns for `targets`."""
        return self.skeleton.width(targets)

    @property
    def size_multiple(self) -> int:
        """The number of pixels that both sides of an image must be multiples of."""
        return 1

    def size_problem(self, height: int, width: int) -> str:
        """Why the network cannot take images of that size; empty if it can."""
        fits = height % self.size_multiple == width % self.size_multiple == 0
        return "" if fits else f"their sides must be multiples of {self.size_multiple}"

    def require_size(self, height: int, width: int) -> None:
        """Refuse images of a size that the network cannot take.

        Raises:
            UserError: names the size, what is wrong with it, and one that is accepted.
        """
        if problem := self.size_problem(height, width):
            usual = "x".join(map(str, self.image_size))
            raise UserError(
                f"{self.name} does not accept images of {height}x{width} ({problem}); set the transform's crop (or "
                f"resize) to an accepted size, such as {usual}"
            )

    def timm_arguments(self) -> dict[str, Any]:
        """The arguments of `timm.create_model` that build the same network, under the same names.

        Raises:
            UserError: timm has no such network.
        """
        raise UserError(f"timm cannot build {self}")

    def transformers_config(self) -> dict[str, Any]:
        """The `config.json` by which transformers' `AutoModel` builds the same network.

        Raises:
            UserError: transformers has no such network.
        """
        raise UserError(f"transformers cannot build {self.name} of the {type(self).__name__} family; convert to timm")

    def with_weights(self, weights: Mapping[str, Tensor], copy: bool = True) -> Backbone:
        """The network with `weights`, in eval mode; without `copy` it shares their memory and must not be trained."""
        import torch

        from cgh_bench.networks.base import without_memory

        place: AbstractContextManager[object] = without_memory() if self.BUILDS_ON_META else torch.device("cpu")
        with place:
            backbone = self.build()
        if copy and self.BUILDS_ON_META:
            backbone.to_empty(device="cpu")
        backbone.load_state_dict(weights, assign=not copy)
        return backbone.eval()


@cache
def _skeleton(architecture: Architecture) -> Backbone:
    from cgh_bench.networks.base import without_memory

    with without_memory():
        return architecture.build().eval()


@cache
def _shapes(architecture: Architecture) -> Mapping[str, torch.Size]:
    return {key: tensor.shape for key, tensor in architecture.skeleton.state_dict().items()}


def chosen(what: str, feature: str, known: Sequence[str]) -> tuple[str, ...]:
    """The parts of `feature` (joined by `+`), each once, in the order of `known`; `last4` are the last four `blockN`.

    Raises:
        UserError: one of them is not in `known`.
    """
    blocks = [part for part in known if part.startswith("block")]
    named = []
    for part in feature.split("+"):
        count = part.removeprefix("last")
        few = part.startswith("last") and count.isdecimal() and 0 < int(count) <= len(blocks)
        named += blocks[-int(count) :] if few else [part]
    for part in named:
        if part not in known:
            raise unknown(what, part, known)
    return tuple(part for part in known if part in named)
