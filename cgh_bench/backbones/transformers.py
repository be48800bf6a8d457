"""Networks of Hugging Face's transformers, built by its own code from their configuration."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from cgh_bench.backbones.base import GLOBAL_FEATURE, Architecture, chosen
from cgh_bench.core.errors import UserError

if TYPE_CHECKING:
    from cgh_bench.networks.base import Backbone

_SAYS_NOTHING = ("architectures", "cgh_bench", "dtype", "id2label", "label2id", "torch_dtype", "transformers_version")
"""What `config.json` has beside what the network is."""
_KNOWN = (
    *("vit", "deit", "vit_mae", "ijepa", "beit", "data2vec-vision", "dinov2", "dinov2_with_registers", "dinov3_vit"),
    *("clip_vision_model", "siglip_vision_model", "siglip2_vision_model", "aimv2_vision_model"),
    *("hiera", "resnet", "convnext", "convnextv2", "dinov3_convnext", "swin", "swinv2"),
)
"""The networks whose outputs have one of the two forms that are known here."""


@dataclass(frozen=True)
class Transformers(Architecture):
    """An image network of Hugging Face transformers, built by `AutoModel` from its configuration."""

    LIBRARY: ClassVar[str] = "transformers"
    GENERIC: ClassVar[bool] = True

    name: str
    """Its `model_type`: `dinov2_with_registers`, `siglip_vision_model`."""
    config: str
    """The rest of its `config.json`, as JSON with sorted keys."""

    def __post_init__(self) -> None:
        if self.name not in _KNOWN:
            raise UserError(
                f"transformers' {self.name or 'model without model_type'} is not accepted, only {', '.join(_KNOWN)}"
            )

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The network that a `config.json` describes; of two towers (CLIP, SigLIP) that of images."""
        document = document.get("vision_config", document)
        rest = {key: value for key, value in document.items() if key not in _SAYS_NOTHING and key[0] != "_"}
        return cls(str(rest.pop("model_type", "")), json.dumps(rest, sort_keys=True))

    @property
    def image_size(self) -> tuple[int, int]:
        """The size that its configuration says, or 224."""
        side = json.loads(self.config).get("image_size") or getattr(self.configuration, "image_size", None) or 224
        if self.name == "siglip2_vision_model":
            side = math.isqrt(self.configuration.num_patches) * self.configuration.patch_size
        height, width = (side, side) if isinstance(side, int) else side
        return height, width

    @property
    def configuration(self) -> Any:
        """The library's own object.

        Raises:
            UserError: the library does not know such a network.
        """
        from transformers import AutoConfig

        unmasked = {"mask_ratio": 0.0} if self.name == "vit_mae" else {}
        try:
            return AutoConfig.for_model(self.name, **{**json.loads(self.config), **unmasked})
        except (ValueError, TypeError) as error:
            raise UserError(f"transformers cannot build {self.name}: {str(error).splitlines()[0]}") from None

    def targets(self, feature: str) -> tuple[str, ...]:
        """What `feature` names, in network order; several are joined by `+`.

        `head` is the network's own pooled output, `cls` and `patch_mean` are taken after the last block and its norm,
        `blockN` (of networks of maps: `stageN`) after that part, without a norm. `layer4` is the global feature:
        `head`, or where there is none `cls` or `patch_mean`.
        """
        from cgh_bench.networks.transformers import TransformersBackbone

        skeleton = self.skeleton
        assert isinstance(skeleton, TransformersBackbone)
        parts = (*skeleton.stages, *skeleton.ends)
        return chosen(f"feature of {self.name}", skeleton.ends[-1] if feature == GLOBAL_FEATURE else feature, parts)

    def size_problem(self, height: int, width: int) -> str:
        """See `Architecture`; the network itself is asked, without computing anything."""
        from cgh_bench.networks.transformers import size_problem

        return size_problem(self, height, width)

    def transformers_config(self) -> dict[str, Any]:
        """See `Architecture`: what it was read from, with the library's defaults."""
        return self.configuration.to_dict()

    def build(self) -> "Backbone":
        """The network, with the library's initial weights."""
        from cgh_bench.networks.transformers import TransformersBackbone

        return TransformersBackbone(self)

    def network(self) -> Any:
        """The library's network; without the learned pooling of BERT that some have behind the class token."""
        from transformers import AutoModel

        kind: Any = AutoModel._model_mapping[type(self.configuration)]
        options = {"add_pooling_layer": False} if self.has_bert_pooling else {}
        return kind._from_config(self.configuration, **options)

    @property
    def has_bert_pooling(self) -> bool:
        """Whether it can have a dense layer and a tanh behind the class token, which pretraining does not train."""
        return self.name in ("vit", "deit", "ijepa")


FAMILIES = {"transformers": Transformers}
