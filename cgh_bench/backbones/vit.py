"""Plain vision transformers under timm's names: the canonical form of every checkpoint of a ViT of a usual size."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from cgh_bench.backbones.base import ACTIVATIONS, GLOBAL_FEATURE, Architecture, chosen
from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError, unknown

if TYPE_CHECKING:
    from cgh_bench.networks.vit import ViTBackbone

SIZES = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}
"""Width and number of blocks, as in timm; tiny and small are DeiT's (https://arxiv.org/abs/2012.12877)."""
_NAME = re.compile(rf"vit_({'|'.join(SIZES)})_patch([1-9]\d*)_([1-9]\d*)")


@dataclass(frozen=True)
class ViT(Architecture):
    """A plain vision transformer without its classifier (https://arxiv.org/abs/2010.11929)."""

    BUILDS_ON_META: ClassVar[bool] = True
    UNTOLD: ClassVar[Mapping[str, str]] = {
        "heads": "number of attention heads",
        "norm_eps": "epsilon of every LayerNorm",
        "activation": f"one of {', '.join(ACTIVATIONS)}",
        "pooling": "the global feature: cls or patch_mean",
        "positions": "how position embeddings are resampled for other image sizes: timm, dino or transformers",
    }

    name: str
    """As timm writes it: size, patch, and the image side that the positions are for: `vit_small_patch16_224`."""
    head_width: int = 64
    """Channels of an attention head; MoCo v3's small network has twelve heads of 32."""
    norm_eps: float = 1e-6
    """Epsilon of every LayerNorm; transformers' `ViTModel` has 1e-12."""
    class_token: bool = True
    class_position: bool = True
    """Whether the class token has a position embedding."""
    registers: int = 0
    """Register tokens (https://arxiv.org/abs/2309.16588); they have no position embedding, as in timm."""
    layer_scale: bool = False
    """Whether each branch ends in a learned scale, as in DINOv2."""
    activation: str = later("gelu")
    """One of `ACTIVATIONS`."""
    pooling: str = later("")
    """The global feature: `cls`, `patch_mean`, or empty for the first of them that there is."""
    positions: Literal["timm", "dino", "transformers"] = later("timm")
    """How position embeddings are resampled for images of another size; see `networks.vit`."""

    def __post_init__(self) -> None:
        if self.pooling == ("cls" if self.class_token else "patch_mean"):
            object.__setattr__(self, "pooling", "")
        for what, value, known in (
            ("activation", self.activation, ACTIVATIONS),
            ("pooling", self.pooling, ("", "patch_mean", *(("cls",) if self.class_token else ()))),
            ("positions", self.positions, ("timm", "dino", "transformers")),
        ):
            if value not in known:
                raise unknown(what, value, known)
        is_named = _NAME.fullmatch(self.name) is not None and self.image_side % self.patch == 0
        if not is_named or self.head_width < 1 or self.dim % self.head_width or self.registers < 0:
            raise UserError(
                f"{self.name} with heads of {self.head_width} is not a vision transformer; accepted: "
                f"vit_{{{','.join(SIZES)}}}_patch{{8,14,16}}_PIXELS, say vit_small_patch16_224"
            )

    def value(self, name: str) -> Any:
        """See `Architecture`."""
        if name == "heads":
            return self.dim // self.head_width
        return self.targets(GLOBAL_FEATURE)[0] if name == "pooling" else super().value(name)

    def having(self, **values: Any) -> Self:
        """See `Architecture`."""
        if heads := values.pop("heads", None):
            if not isinstance(heads, int) or heads < 1 or self.dim % heads:
                raise UserError(f"{self.name} is {self.dim} wide, which is not divisible by {heads} heads; set heads=…")
            values["head_width"] = self.dim // heads
        return super().having(**values)

    @classmethod
    def names(cls) -> Iterable[str]:
        """See `Architecture`; other patches and image sides can be named too."""
        return (f"vit_{size}_patch{patch}_224" for size in SIZES for patch in (8, 14, 16))

    @classmethod
    def named(cls, name: str) -> Self | None:
        """See `Architecture`."""
        return cls(name) if _NAME.fullmatch(name) else None

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

    @property
    def image_size(self) -> tuple[int, int]:
        """The size that the position embeddings are for."""
        return self.image_side, self.image_side

    @property
    def size_multiple(self) -> int:
        """The side of a patch."""
        return self.patch

    def targets(self, feature: str) -> tuple[str, ...]:
        """What `feature` names, in network order; several are joined by `+`.

        `cls` is the class token and `patch_mean` the mean of the patch tokens, both after the final norm; `blockN` is
        what `cls` would be if the network ended with its Nth block (`block9+block10+block11+block12` is what DINO's
        linear evaluation takes of a ViT-S). `layer4` is the global feature, as of a ResNet: `cls`, or `patch_mean`
        where there is no class token.
        """
        tokens = ("cls", "patch_mean") if self.class_token else ("patch_mean",)
        if feature == GLOBAL_FEATURE:
            return (self.pooling or tokens[0],)
        blocks = (f"block{number}" for number in range(1, self.depth + 1))
        return chosen(f"feature of {self.name}", feature, (*blocks, *tokens))

    def arguments(self) -> dict[str, Any]:
        """The arguments of timm's `VisionTransformer` that say what it is, but the epsilon of its norms."""
        return {
            "img_size": self.image_side,
            "patch_size": self.patch,
            "embed_dim": self.dim,
            "depth": self.depth,
            "num_heads": self.dim // self.head_width,
            "class_token": self.class_token,
            "no_embed_class": not self.class_position,
            "reg_tokens": self.registers,
            "init_values": 1e-5 if self.layer_scale else None,
            "act_layer": self.activation,
        }

    def timm_arguments(self) -> dict[str, Any]:
        """See `Architecture`; what differs from timm's network of this size with patches of 16 at 224 pixels."""
        registered = ViT(f"vit_{self.size}_patch16_224")
        usual = registered.arguments()
        other = {
            name: value
            for name, value in self.arguments().items()
            if value != usual[name]  # timm's epsilon is 1e-6; the proof tells if it matters
        }
        pool = {"global_pool": "avg", "fc_norm": False} if self.value("pooling") == "patch_mean" else {}
        return {"model_name": registered.name, **other, **pool}

    def transformers_config(self) -> dict[str, Any]:
        """See `Architecture`; the fields are those of configuration_vit.py and configuration_dinov2.py."""
        if self.registers or not (self.class_token and self.class_position):
            raise UserError(f"transformers cannot build {self}; accepted: ViTs with class token, without registers")
        return {
            "architectures": ["Dinov2Model" if self.layer_scale else "ViTModel"],
            "model_type": "dinov2" if self.layer_scale else "vit",
            "hidden_size": self.dim,
            "num_hidden_layers": self.depth,
            "num_attention_heads": self.dim // self.head_width,
            "intermediate_size": 4 * self.dim,
            "hidden_act": "gelu",
            "layer_norm_eps": self.norm_eps,
            "image_size": self.image_side,
            "patch_size": self.patch,
            "qkv_bias": True,
            **({"mlp_ratio": 4, "use_swiglu_ffn": False} if self.layer_scale else {}),
        }

    def build(self) -> "ViTBackbone":
        """The network, with timm's initial weights."""
        from cgh_bench.networks.vit import ViTBackbone

        return ViTBackbone(self)


FAMILIES = {"vit": ViT}
