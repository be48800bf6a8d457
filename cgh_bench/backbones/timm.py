"""Any network of timm, built by timm's own code from its name and arguments: weights have timm's names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from cgh_bench.backbones.base import GLOBAL_FEATURE, Architecture, chosen
from cgh_bench.core.errors import UserError

if TYPE_CHECKING:
    from cgh_bench.networks.base import Backbone

Pooling = Literal["head", "cls", "patch_mean"]
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""How timm's networks are told to take images of other sizes, where they can."""


@dataclass(frozen=True)
class Timm(Architecture):
    """Any timm network (https://github.com/huggingface/pytorch-image-models), by name; see `list archs`."""

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
        from cgh_bench.networks.timm import image_size

        return image_size(self)

    def targets(self, feature: str) -> tuple[str, ...]:
        """What `feature` names, in network order; several are joined by `+`.

        `head` is what the network's own head gives its classifier. Networks of blocks on one grid of tokens have
        `blockN`, `cls` and `patch_mean` beside it, as `ViT` does; others the modules that timm lists as their features
        (`stages.0`, …). `layer4` is the global feature, `pooling`.
        """
        from cgh_bench.networks.wrapped import Transformer

        skeleton = self.skeleton
        tokens = () if not isinstance(skeleton, Transformer) else ("cls", "patch_mean")[not skeleton.has_cls :]
        parts = (*skeleton.stages, *tokens, "head")
        return chosen(f"feature of {self.name}", self.pooling if feature == GLOBAL_FEATURE else feature, parts)

    def size_problem(self, height: int, width: int) -> str:
        """See `Architecture`; the network itself is asked, without computing anything."""
        from cgh_bench.networks.timm import size_problem

        return size_problem(self, height, width)

    def timm_arguments(self) -> dict[str, Any]:
        """See `Architecture`."""
        return {"model_name": self.name, **dict(self.arguments)}

    def build(self) -> "Backbone":
        """The network, with timm's initial weights."""
        from cgh_bench.networks.timm import built

        return built(self)

    def network(self, **more: Any) -> Any:
        """The network, whole and by timm itself; it takes images of any size, where it can."""
        import timm

        for flexible in _ANY_SIZE:
            try:
                found: Any = timm.create_model(self.name, **{**flexible, **dict(self.arguments), **more})
                if not flexible or _has_whole_patches(found):
                    return found
            except TypeError as error:
                if not flexible:
                    raise UserError(f"timm cannot build {self.name} with {dict(self.arguments)}: {error}") from None
        raise AssertionError(self.name)


def _has_whole_patches(network: Any) -> bool:
    """Whether its own images are whole patches: of others timm drops the rest, but only if it takes no other."""
    embedding = getattr(network, "patch_embed", None)
    found = (getattr(embedding, name, None) for name in ("img_size", "patch_size"))
    sizes, patches = (value if isinstance(value, tuple) else (value, value) for value in found)
    return None in (*sizes, *patches) or all(size % patch == 0 for size, patch in zip(sizes, patches, strict=True))


def _is_known(name: str) -> bool:
    """Whether timm has that network, with a head: some of its encoders (`…_enc`) pool nothing."""
    from timm import is_model  # takes a second

    return bool(is_model(name)) and not name.endswith("_enc")


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        raise UserError(f"an argument of timm.create_model is {value}; accepted: numbers, texts and lists of them")
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


FAMILIES = {"timm": Timm}
