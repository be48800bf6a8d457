"""What a vision transformer is, beside its weights; its names are timm's. The network itself is in `vit_backbone`."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cgh_bench.backbones.resnet import GLOBAL_FEATURE
from cgh_bench.core.errors import UserError, unknown

if TYPE_CHECKING:
    from cgh_bench.backbones.vit_backbone import ViTBackbone

SIZES = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}
"""Width and number of blocks, as in timm; tiny and small are DeiT's (https://arxiv.org/abs/2012.12877)."""
_NAME = re.compile(rf"vit_({'|'.join(SIZES)})_patch([1-9]\d*)_([1-9]\d*)")


@dataclass(frozen=True)
class ViT:
    """What must be known, beside its weights, to build a plain vision transformer (https://arxiv.org/abs/2010.11929)."""

    name: str
    """As timm writes it: size, patch, and the image side that the positions are for: `vit_small_patch16_224`."""
    head_width: int = 64
    """Channels of an attention head; MoCo v3's small network has twelve heads of 32."""
    norm_eps: float = 1e-6
    """Of every LayerNorm; transformers' `ViTModel` has 1e-12."""
    class_token: bool = True
    class_position: bool = True
    """Whether the class token has a position embedding."""
    registers: int = 0
    """Register tokens (https://arxiv.org/abs/2309.16588); they have no position embedding, as in timm."""
    layer_scale: bool = False
    """Whether each branch ends in a learned scale, as in DINOv2."""

    def __post_init__(self) -> None:
        is_named = _NAME.fullmatch(self.name) is not None and self.image_side % self.patch == 0
        if not is_named or self.head_width < 1 or self.dim % self.head_width or self.registers < 0:
            raise UserError(
                f"{self.name} with heads of {self.head_width} is no vision transformer; accepted: "
                f"vit_{{{','.join(SIZES)}}}_patch{{8,14,16}}_PIXELS, say vit_small_patch16_224"
            )

    @property
    def size(self) -> str:
        """One of `SIZES`."""
        return self._parts[0]

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return SIZES[self.size][0]

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return SIZES[self.size][1]

    @property
    def patch(self) -> int:
        """The side of a patch in pixels."""
        return int(self._parts[1])

    @property
    def image_side(self) -> int:
        """The side of the images, in pixels, that the position embeddings are for."""
        return int(self._parts[2])

    @property
    def _parts(self) -> tuple[str, ...]:
        found = _NAME.fullmatch(self.name)
        assert found, self.name
        return found.groups()

    def targets(self, feature: str) -> tuple[str, ...]:
        """What `feature` names, in network order; several are joined by `+`.

        `cls` is the class token and `patch_mean` the mean of the patch tokens, both after the final norm; `blockN` is
        what `cls` would be if the network ended with its Nth block (`block9+block10+block11+block12` is what DINO's
        linear evaluation takes of a ViT-S). `layer4` is the global feature, as of a ResNet: `cls`, or `patch_mean`
        where there is no class token.

        Raises:
            UserError: there is no such target.
        """
        tokens = ("cls", "patch_mean") if self.class_token else ("patch_mean",)
        if feature == GLOBAL_FEATURE:
            return tokens[:1]
        known = (*(f"block{number}" for number in range(1, self.depth + 1)), *tokens)
        named = feature.split("+")
        for target in named:
            if target not in known:
                raise unknown(f"feature of {self.name}", target, (GLOBAL_FEATURE, *known))
        return tuple(target for target in known if target in named)

    def build(self) -> "ViTBackbone":
        """The network, with timm's initial weights."""
        from cgh_bench.backbones.vit_backbone import ViTBackbone  # timm takes a second to import

        return ViTBackbone(self)
