"""Residual networks, as torchvision builds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from cgh_bench.networks.base import ACTIVATIONS, Backbone, Stage

if TYPE_CHECKING:
    from cgh_bench.backbones.resnet import ResNet

STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResNetBackbone(Backbone):
    """A ResNet without its classifier. Parameter names are torchvision's: `conv1.weight`, `layer1.0.bn1.bias`, …

    Source: He et al., Deep Residual Learning, CVPR 2016 (https://arxiv.org/abs/1512.03385), as built by torchvision.
    """

    def __init__(self, architecture: ResNet) -> None:
        from torchvision.models import get_model  # takes twice as long as torch, and lists need none

        super().__init__()
        self.architecture = architecture
        whole = get_model(architecture.name, weights=None)
        stride, padding, pool = (architecture.value(f"stem.{name}") for name in ("stride", "padding", "pool"))
        reduction = stride * (1 + pool)
        self.stages = {}
        for stage, dilation in zip(STAGES, architecture.dilation, strict=True):
            reduction *= 2 if self.stages and dilation == 1 else 1
            self.stages[stage] = Stage(_out_channels(getattr(whole, stage)), reduction)
        self.conv1 = whole.conv1 if architecture.stem == "imagenet" else _STEM[architecture.stem]()
        first = self.conv1[0] if isinstance(self.conv1, nn.Sequential) else self.conv1
        first.stride, first.padding = (stride, stride), (padding, padding)
        self.bn1 = whole.bn1
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = whole.maxpool if pool else nn.Identity()
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            whole.layer1,
            whole.layer2,
            whole.layer3,
            whole.layer4,
        )
        if architecture.stride_in_1x1:
            _move_stride_to_1x1(self)
        _dilate(self, architecture)
        for module in list(self.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.eps = architecture.norm_eps
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, ACTIVATIONS[architecture.activation]())

    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        """The output of every stage after its last activation: {"layer1": (B, C, H/4, W/4), …}."""
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


_STEM = {"cifar": lambda: _convolution(3, 64, stride=1), "deep": _deep_stem}


def _dilate(network: nn.Module, architecture: ResNet) -> None:
    before = 1
    for number, (stage, dilation) in enumerate(zip(STAGES, architecture.dilation, strict=True)):
        for place, block in enumerate(getattr(network, stage)):
            here = dilation if place or architecture.dilate_first else before
            for module in block.modules():
                if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                    module.dilation = module.padding = (here, here)
                if isinstance(module, nn.Conv2d) and dilation > 1 and number:
                    module.stride = (1, 1)
        before = dilation


def _out_channels(stage: nn.Sequential) -> int:
    convolutions = [m for m in stage[-1].modules() if isinstance(m, nn.Conv2d)]
    return convolutions[-1].out_channels


def _move_stride_to_1x1(network: nn.Module) -> None:
    from torchvision.models.resnet import Bottleneck

    for module in network.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
