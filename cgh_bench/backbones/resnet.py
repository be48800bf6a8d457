"""The canonical residual backbone: a trunk under torchvision's key names, whose stages are returned, never hooked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torchvision.models
from torch import Tensor, nn

from cgh_bench.core.errors import unknown

STAGES = ("layer1", "layer2", "layer3", "layer4")
GLOBAL_FEATURE = "layer4"
"""What tasks call the global feature of a trunk of any kind. The name is a ResNet's, as protocol ids contain it."""
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
class Architecture:
    """What must be known, beside its weights, to build a trunk."""

    name: str
    """One of `ARCHS`, torchvision's names."""
    stem: Stem = "imagenet"
    """imagenet: 7x7 stride 2, max-pool; cifar: one 3x3 stride 1, no pool; deep: three 3x3, max-pool (ResNet-v1c)."""
    stride_in_1x1: bool = False
    """Where a bottleneck strides: its first 1x1 (the original MSRA networks, caffe style) or its 3x3 (torchvision)."""

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

    def targets(self, feature: str) -> tuple[str, ...]:
        """The stages that `feature` names, in network order: `layer4+layer3` to `("layer3", "layer4")`.

        Raises:
            UserError: there is no such stage.
        """
        named = set(feature.split("+"))
        for stage in sorted(named):
            if stage not in STAGES:
                raise unknown("stage", stage, STAGES)
        return tuple(sorted(named))

    def build(self) -> "Backbone":
        """The network, with torchvision's initial weights."""
        return Backbone(self)


class Backbone(nn.Module):
    """A ResNet without its classifier. Parameter names are torchvision's: `conv1.weight`, `layer1.0.bn1.bias`, …

    Source: He et al., Deep Residual Learning, CVPR 2016 (https://arxiv.org/abs/1512.03385), as built by torchvision.

    Attributes:
        architecture: what was built.
        channels: width of each stage, `{"layer1": 64, …}`.
        dim: width `D` of the pooled feature, the last stage's.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        if architecture.name not in ARCHS:
            raise unknown("architecture", architecture.name, ARCHS)
        self.architecture = architecture
        whole = torchvision.models.get_model(architecture.name, weights=None)
        self.channels = {stage: _out_channels(getattr(whole, stage)) for stage in STAGES}
        self.dim = self.channels["layer4"]
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

    def width(self, targets: tuple[str, ...]) -> int:
        """The width D of what `pooled` returns for `targets`."""
        return sum(self.channels[stage] for stage in targets)

    def pooled(self, images: Tensor, targets: tuple[str, ...]) -> Tensor:
        """The mean over positions of the targets' hypercolumn, (B, D); of `layer4` alone it is the global feature.

        Args:
            images: (B, 3, H, W), preprocessed.
            targets: stages, in the order of `Architecture.targets`.
        """
        return hypercolumn(self.pyramid(images), targets).mean(dim=(2, 3))

    def pool(self, maps: Mapping[str, Tensor]) -> Tensor:
        """The global feature (B, D): the mean of the last stage over its positions."""
        return maps["layer4"].mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """The global feature (B, D) of `images` (B, 3, H, W)."""
        return self.pool(self.pyramid(images))


def hypercolumn(maps: Mapping[str, Tensor], stages: tuple[str, ...]) -> Tensor:
    """Stack `stages` into one map (B, ΣC, h, w) on the grid of the last of them, by bilinear interpolation.

    Half-pixel centres, no antialiasing, as in CGH (https://arxiv.org/abs/2308.13392): a factor of two is exactly 2x2
    average pooling; a larger factor reads only the centre of each cell.
    """
    size = maps[stages[-1]].shape[-2:]
    resized = [
        maps[s] if maps[s].shape[-2:] == size else nn.functional.interpolate(maps[s], size, mode="bilinear")
        for s in stages
    ]
    return torch.cat(resized, dim=1)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _deep_stem() -> nn.Sequential:
    """Three 3x3 convolutions of 32, 32 and 64 channels; the last norm is the trunk's `bn1` (timm's key names)."""
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


def _move_stride_to_1x1(trunk: nn.Module) -> None:
    for module in trunk.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
