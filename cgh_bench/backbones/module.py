"""Any module in memory as a backbone: whatever turns images into vectors or maps. It says what it is, and no more."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cgh_bench.backbones.base import GLOBAL_FEATURE, Architecture, chosen
from cgh_bench.core.errors import UserError, one_line

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.networks.module import ModuleBackbone, Pick

PART = "features"
"""The only part that a module has: its output."""


@dataclass(frozen=True)
class Module(Architecture):
    """A module in memory; it exists only in this process and cannot be saved."""

    GENERIC: ClassVar[bool] = True
    IN_DETECTORS: ClassVar[str] = ""

    name: str
    """Its class, with the module that defines it."""
    features: str
    """How features are taken from it."""
    content: str
    """Sixteen hex digits of all that its weights do not say: classes of submodules, plain attributes, sources."""
    size: tuple[int, int]
    """Height and width of the images that it was tried with."""
    channels: int
    stride: int
    """Pixels per position of its map; 0 where it gives a vector."""
    network: Any = field(repr=False, compare=False)
    """A copy of the module on the CPU, in eval mode, with `pick`."""

    def build(self) -> ModuleBackbone:
        """A copy of the module, with its own weights."""
        from cgh_bench.networks.module import ModuleBackbone

        return ModuleBackbone(self, copy.deepcopy(self.network))

    @property
    def skeleton(self) -> ModuleBackbone:
        """The copy that is kept: it must not be trained."""
        from cgh_bench.networks.module import ModuleBackbone

        return ModuleBackbone(self, self.network)

    @property
    def image_size(self) -> tuple[int, int]:
        """See `Architecture`."""
        return self.size

    def targets(self, feature: str) -> tuple[str, ...]:
        """`layer4` (the global feature) and `features` are the same: what the module gives."""
        return chosen(f"feature of {self.name}", PART if feature == GLOBAL_FEATURE else feature, (PART,))

    def with_weights(self, weights: Mapping[str, Tensor], copy: bool = True) -> ModuleBackbone:
        """See `Architecture`; without `copy`, the module that is kept."""
        if not copy:
            return self.skeleton
        backbone = self.build()
        backbone.load_state_dict(weights)
        return backbone.eval()


def from_module(model: Callable[..., Any], pick: Pick, size: tuple[int, int]) -> Module:
    """`model` as an architecture, tried on two images of noise.

    A copy is made; mode, device and gradients of `model` stay as they are.

    Args:
        model: an `nn.Module`, a method of one, or any callable of images (B, 3, H, W), preprocessed.
        pick: see `networks.module.Pick`.
        size: height and width of the images to try.

    Raises:
        UserError: it cannot be copied or fails, or gives neither (B, D) nor (B, C, h, w): what `features` must do.
    """
    from cgh_bench.networks.module import Picked, content_of, name_of, owner_of, shape_of

    owner, name = owner_of(model), name_of(model)
    try:
        network = Picked(copy.deepcopy(model), pick)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be copied ({one_line(error)}); evaluation works on a copy") from None
    network.float().cpu().eval().zero_grad()
    channels, stride = shape_of(network, name, size)
    how = getattr(pick, "__qualname__", str(pick or "output"))
    return Module(name, how, content_of(owner, model, pick), size, channels, stride, network)


FAMILIES = {"module": Module}
