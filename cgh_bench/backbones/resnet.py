"""Residual networks under torchvision's names: the canonical form of every checkpoint of a ResNet."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from cgh_bench.backbones.base import ACTIVATIONS, Architecture, chosen
from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError, unknown

if TYPE_CHECKING:
    from cgh_bench.networks.resnet import ResNetBackbone

STAGES = ("layer1", "layer2", "layer3", "layer4")
ARCHS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
)

Stem = Literal["imagenet", "cifar", "deep"]
_STEMS: Mapping[str, tuple[int, int, bool]] = {"imagenet": (2, 3, True), "cifar": (1, 1, False), "deep": (2, 1, True)}
"""The usual stride and padding of each stem's first convolution, and whether a max-pool follows."""


@dataclass(frozen=True)
class ResNet(Architecture):
    """A ResNet, wide ResNet or ResNeXt without its classifier."""

    RECORDED_AS: ClassVar[str] = "Architecture"
    BUILDS_ON_META: ClassVar[bool] = True
    IN_DETECTORS: ClassVar[str] = "native or carried"
    UNTOLD: ClassVar[Mapping[str, str]] = {
        "stem.stride": "stride of the first convolution",
        "stem.padding": "padding of the first convolution",
        "stem.pool": "whether a max-pool follows the stem",
        "stride_in_1x1": "whether a bottleneck strides in its first 1x1 (caffe) instead of its 3x3",
        "dilation": "dilation of the 3x3 convolutions of each stage",
        "dilate_first": "whether the first 3x3 of a dilated stage is dilated like the others",
        "activation": f"one of {', '.join(ACTIVATIONS)}",
        "norm_eps": "epsilon of every BatchNorm",
    }

    name: str
    """One of `ARCHS`, torchvision's names."""
    stem: Stem = "imagenet"
    """imagenet: 7x7 stride 2, max-pool; cifar: one 3x3 stride 1, no pool; deep: three 3x3, max-pool (ResNet-v1c)."""
    stride_in_1x1: bool = False
    """Where a bottleneck strides: its first 1x1 (the original MSRA networks, caffe style) or its 3x3 (torchvision)."""
    stem_stride: int | None = later(None)
    """Stride of the first convolution; None is what is usual for the stem."""
    stem_padding: int | None = later(None)
    """Its padding; solo-learn's 3x3 stem pads by 2."""
    stem_pool: bool | None = later(None)
    """Whether a max-pool follows it."""
    dilation: tuple[int, int, int, int] = later((1, 1, 1, 1))
    """The dilation of the 3x3 convolutions of each stage; a later stage with more than 1 does not stride."""
    dilate_first: bool = later(False)
    """Whether a dilated stage's first 3x3 has the whole dilation (detectron2, mmdetection) or that of the stage before
    (torchvision, timm)."""
    activation: str = later("relu")
    """One of `ACTIVATIONS`."""
    norm_eps: float = later(1e-5)
    """Epsilon of every BatchNorm; networks that come from TensorFlow have 1e-3."""

    def __post_init__(self) -> None:
        if self.stem not in _STEMS:
            raise unknown("stem", self.stem, _STEMS)
        for name, usual in zip(("stem_stride", "stem_padding", "stem_pool"), _STEMS[self.stem], strict=True):
            if getattr(self, name) == usual:
                object.__setattr__(self, name, None)
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if len(self.dilation) != len(STAGES) or min(self.dilation) < 1 or not 0 < self.norm_eps < 1:
            raise UserError(
                f"{self} is not a valid ResNet; expected a dilation of 1 or more for each of {len(STAGES)} stages, and "
                "norm_eps between 0 and 1"
            )
        if max(self.dilation) > 1 and not self.has_bottlenecks:
            raise UserError(
                f"{self.name} with dilation {self.dilation} is not supported: libraries dilate its blocks differently"
            )
        if (self.stem_stride or 1) < 1 or (self.stem_padding or 0) < 0:
            raise UserError(f"{self.identity} is not a valid ResNet; expected stem.stride >= 1 and stem.padding >= 0")

    @property
    def untold(self) -> tuple[str, ...]:
        """See `Architecture`; only bottlenecks have a 1x1 that could stride."""
        return tuple(name for name in self.UNTOLD if self.has_bottlenecks or name != "stride_in_1x1")

    def value(self, name: str) -> Any:
        """See `Architecture`; of the stem, what it usually is where no other value is set."""
        found = super().value(name)
        kinds = ("stem.stride", "stem.padding", "stem.pool")
        return _STEMS[self.stem][kinds.index(name)] if found is None else found

    @classmethod
    def names(cls) -> Iterable[str]:
        """See `Architecture`."""
        return ARCHS

    @classmethod
    def named(cls, name: str) -> Self | None:
        """See `Architecture`."""
        return cls(name) if name in ARCHS else None

    @property
    def depth(self) -> int:
        """The number of layers in its name: 18 to 152."""
        found = re.search(r"res(?:net|next)(\d+)", self.name)
        assert found, self.name
        return int(found.group(1))

    @property
    def has_bottlenecks(self) -> bool:
        """Whether its blocks are 1x1, 3x3, 1x1; the blocks of the shallow ones are two 3x3."""
        return self.depth > 34

    @property
    def groups_and_width(self) -> tuple[int, int]:
        """Groups of a bottleneck's 3x3, and channels per group in the first stage (64 in a plain ResNet)."""
        if self.name.startswith("wide"):
            return 1, 128
        if self.name.startswith("resnext"):
            groups, width = self.name.split("_")[1].removesuffix("d").split("x")
            return int(groups), int(width)
        return 1, 64

    @property
    def image_size(self) -> tuple[int, int]:
        """Any size will do; this is one that every stage tells something of."""
        return 96, 128

    def targets(self, feature: str) -> tuple[str, ...]:
        """The stages that `feature` names, in network order: `layer4+layer3` to `("layer3", "layer4")`."""
        return chosen("stage", feature, STAGES)

    def timm_arguments(self) -> dict[str, Any]:
        """See `Architecture`; timm has the imagenet and the deep stem, and the stride in the 3x3."""
        if self.stem == "cifar" or self.stride_in_1x1 or self.is_unusual:
            raise UserError(f"timm cannot build {self}; it has imagenet and deep stems, with the stride in the 3x3")
        return {"model_name": self.name, **({"stem_type": "deep", "stem_width": 32} if self.stem == "deep" else {})}

    def transformers_config(self) -> dict[str, Any]:
        """See `Architecture`; the fields are those of transformers' configuration_resnet.py."""
        if self.stem != "imagenet" or not self.name.startswith("resnet") or self.is_unusual:
            raise UserError(f"transformers cannot build {self}; accepted: resnet18 to 152 with the imagenet stem")
        network = self.skeleton
        return {
            "architectures": ["ResNetModel"],
            "model_type": "resnet",
            "embedding_size": 64,
            "hidden_sizes": [stage.channels for stage in network.stages.values()],
            "depths": [len(getattr(network, stage)) for stage in STAGES],
            "layer_type": "bottleneck" if self.has_bottlenecks else "basic",
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": self.stride_in_1x1,
        }

    @property
    def is_unusual(self) -> bool:
        """Whether anything but stem and place of the stride differs from torchvision's; converters refuse that."""
        return self != ResNet(self.name, self.stem, self.stride_in_1x1)

    def build(self) -> "ResNetBackbone":
        """The network, with torchvision's initial weights."""
        from cgh_bench.networks.resnet import ResNetBackbone

        if self.name not in ARCHS:
            raise unknown("architecture", self.name, ARCHS)
        return ResNetBackbone(self)


def require_resnet(architecture: Architecture, what: str) -> ResNet:
    """`architecture`, for what is true of residual networks only (C4 heads, the place of the stride).

    Raises:
        UserError: it is of another family, or unusual; the message begins with `what`.
    """
    if not isinstance(architecture, ResNet):
        raise UserError(
            f"{what}: {architecture.name} is not a ResNet, and only ResNets are accepted here. Other backbones convert "
            "to timm (some also to huggingface), can be evaluated frozen (eval knn, linear, …), and run in detection "
            "and segmentation unchanged (eval animals_det_any, animals_seg_any, coco_vitdet, …)"
        )
    if architecture.is_unusual:
        raise UserError(
            f"{what}: only ResNets in torchvision's form are accepted here, not {architecture.identity}; others "
            "can be evaluated frozen (eval knn, linear, …)"
        )
    return architecture


FAMILIES = {"resnet": ResNet}
