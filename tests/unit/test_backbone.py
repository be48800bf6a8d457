"""The backbone against torchvision's own network, and against independent arithmetic where torchvision has none."""

import pytest
import torch
import torchvision
from torch import nn

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ARCHS, STAGES, ResNet
from cgh_bench.core.errors import UserError
from cgh_bench.networks.base import Backbone, hypercolumn, without_memory
from cgh_bench.networks.resnet import ResNetBackbone

IMAGES = torch.linspace(-2, 2, 2 * 3 * 64 * 96).view(2, 3, 64, 96).sin()


def on_meta(architecture: Architecture) -> Backbone:
    with without_memory():
        return architecture.build()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_pyramid_is_torchvisions(name: str) -> None:
    reference = torchvision.models.get_model(name, weights=None).eval()
    backbone = ResNetBackbone(ResNet(name)).eval()
    backbone.load_state_dict({k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")})
    with torch.inference_mode():
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(IMAGES))))
        maps = backbone.pyramid(IMAGES)
        for stage in STAGES:
            x = getattr(reference, stage)(x)
            assert torch.equal(maps[stage], x)
        reference.fc = nn.Identity()
        torch.testing.assert_close(backbone(IMAGES), reference(IMAGES))


@pytest.mark.parametrize("name", ARCHS)
def test_names_channels_and_depth(name: str) -> None:
    backbone, architecture = on_meta(ResNet(name)), ResNet(name)
    with without_memory():
        whole = torchvision.models.get_model(name, weights=None)
    assert {f"{k}.weight" for k in ("conv1", "layer1.0.conv1")} <= backbone.state_dict().keys()
    assert [k for k in whole.state_dict() if not k.startswith("fc.")] == list(backbone.state_dict())
    assert backbone.dim == whole.fc.in_features == backbone.stages["layer4"].channels
    layers = sum(isinstance(m, nn.Conv2d) and "downsample" not in k for k, m in backbone.named_modules()) + 1
    assert architecture.depth == layers
    block = backbone.layer1[0]
    assert architecture.has_bottlenecks == hasattr(block, "conv3")
    if architecture.has_bottlenecks:
        groups, width = architecture.groups_and_width
        assert (block.conv2.groups, block.conv2.out_channels) == (groups, groups * width)


@pytest.mark.parametrize(("stem", "first"), [("imagenet", (16, 24)), ("deep", (16, 24)), ("cifar", (64, 96))])
def test_stems(stem: str, first: tuple[int, int]) -> None:
    maps = ResNetBackbone(ResNet("resnet18", stem)).eval().pyramid(IMAGES)  # type: ignore[arg-type]
    assert maps["layer1"].shape == (2, 64, *first)
    assert maps["layer4"].shape == (2, 512, first[0] // 8, first[1] // 8)


def test_stride_in_the_first_convolution() -> None:
    """A caffe block reads every second pixel before its 1x1; the weights are the same, the outputs are not."""
    backbone, caffe = (
        ResNetBackbone(ResNet("resnet50")).eval(),
        ResNetBackbone(ResNet("resnet50", stride_in_1x1=True)).eval(),
    )
    caffe.load_state_dict(backbone.state_dict())
    x = torch.randn(1, 256, 8, 8, generator=torch.Generator().manual_seed(0))
    block, ours = backbone.layer2[0], caffe.layer2[0]
    with torch.inference_mode():
        y = block.relu(block.bn1(block.conv1(x[..., ::2, ::2])))
        y = block.relu(block.bn2(nn.functional.conv2d(y, block.conv2.weight, padding=1)))
        expected = block.relu(block.bn3(block.conv3(y)) + block.downsample(x))
        torch.testing.assert_close(ours(x), expected)
        assert not torch.allclose(block(x), expected)


def test_hypercolumn_of_a_factor_two_is_average_pooling() -> None:
    maps = {"layer3": torch.randn(1, 3, 8, 8), "layer4": torch.randn(1, 5, 4, 4)}
    stacked = hypercolumn(maps, ("layer3", "layer4"))
    torch.testing.assert_close(stacked[:, :3], nn.functional.avg_pool2d(maps["layer3"], 2))
    assert torch.equal(stacked[:, 3:], maps["layer4"])


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="did you mean resnet50"):
        ResNet("resnet-50").build()
