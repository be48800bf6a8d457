"""Residual networks under torchvision's names: the canonical form of every checkpoint of a ResNet."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torchvision.models
from torch import Tensor, nn

from cgh_bench.backbones.base import Architecture, Backbone, Stage, chosen
from cgh_bench.core.errors import UserError, unknown

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


@dataclass(frozen=True)
class ResNet(Architecture):
    """A ResNet, wide ResNet or ResNeXt without its classifier."""

    RECORDED_AS: ClassVar[str] = "Architecture"
    BUILDS_ON_META: ClassVar[bool] = True

    name: str
    """One of `ARCHS`, torchvision's names."""
    stem: Stem = "imagenet"
    """imagenet: 7x7 stride 2, max-pool; cifar: one 3x3 stride 1, no pool; deep: three 3x3, max-pool (ResNet-v1c)."""
    stride_in_1x1: bool = False
    """Where a bottleneck strides: its first 1x1 (the original MSRA networks, caffe style) or its 3x3 (torchvision)."""

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
        if self.stem == "cifar" or self.stride_in_1x1:
            raise UserError(f"timm cannot build {self}; it has the imagenet and deep stems, and the stride in the 3x3")
        return {"model_name": self.name, **({"stem_type": "deep", "stem_width": 32} if self.stem == "deep" else {})}

    def build(self) -> "ResNetBackbone":
        """The network, with torchvision's initial weights."""
        return ResNetBackbone(self)


class ResNetBackbone(Backbone):
    """A ResNet without its classifier. Parameter names are torchvision's: `conv1.weight`, `layer1.0.bn1.bias`, …

    Source: He et al., Deep Residual Learning, CVPR 2016 (https://arxiv.org/abs/1512.03385), as built by torchvision.
    """

    def __init__(self, architecture: ResNet) -> None:
        super().__init__()
        if architecture.name not in ARCHS:
            raise unknown("architecture", architecture.name, ARCHS)
        self.architecture = architecture
        whole = torchvision.models.get_model(architecture.name, weights=None)
        first = 1 if architecture.stem == "cifar" else 4
        self.stages = {
            stage: Stage(_out_channels(getattr(whole, stage)), first * 2**number) for number, stage in enumerate(STAGES)
        }
        if architecture.stem == "imagenet":
            self.conv1, self.bn1 = whole.conv1, whole.bn1
        elif architecture.stem == "cifar":
            self.conv1, self.bn1 = _convolution(3, 64, stride=1), whole.bn1
        else:
            self.conv1, self.bn1 = _deep_stem(), whole.bn1
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if architecture.stem == "cifar" else whole.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            whole.layer1,
            whole.layer2,
            whole.layer3,
            whole.layer4,
        )
        if architecture.stride_in_1x1:
            _move_stride_to_1x1(self)

    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        """The output of every stage after its last ReLU: `images` (B, 3, H, W) to `{"layer1": (B, C, H/4, W/4), …}`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = {}
        for stage in STAGES:
            x = getattr(self, stage)(x)
            maps[stage] = x
        return maps

    def global_and_pyramid(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean of the last stage over its positions, and all stages."""
        maps = self.pyramid(images)
        return maps["layer4"].mean(dim=(2, 3)), maps


def require_resnet(architecture: Architecture, what: str) -> ResNet:
    """`architecture`, for what is true of residual networks only (C4 heads, the place of the stride).

    Raises:
        UserError: it is of another family; the message begins with `what`.
    """
    if not isinstance(architecture, ResNet):
        raise UserError(
            f"{what}: {architecture.name} is not a ResNet, and only ResNets are accepted here; other backbones convert "
            "to timm and huggingface and are evaluated frozen (eval knn, linear, …)"
        )
    return architecture


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _deep_stem() -> nn.Sequential:
    """Three 3x3 convolutions of 32, 32 and 64 channels; the last norm is the backbone's `bn1` (timm's key names)."""
    return nn.Sequential(
        _convolution(3, 32, stride=2),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        _convolution(32, 32, stride=1),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        _convolution(32, 64, stride=1),
    )


def _out_channels(stage: nn.Sequential) -> int:
    convolutions = [m for m in stage[-1].modules() if isinstance(m, nn.Conv2d)]
    return convolutions[-1].out_channels


def _move_stride_to_1x1(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)


FAMILIES = {"resnet": ResNet}
