"""Networks of timm: the contract for every family, sizes, features, and what is refused."""

import pytest
import torch
from torch import Tensor

from cgh_bench import backbones
from cgh_bench.backbones.timm import Timm
from cgh_bench.core.errors import UserError

ONE_OF_EACH = (
    "aimv2_large_patch14_224",
    "beit_base_patch16_224",
    "botnet26t_256",
    "cait_xxs24_224",
    "coat_lite_tiny",
    "coatnet_nano_rw_224",
    "convit_tiny",
    "convmixer_768_32",
    "convnext_atto",
    "convnextv2_atto",
    "crossvit_tiny_240",
    "cspresnet50",
    "davit_tiny",
    "deit_tiny_distilled_patch16_224",
    "densenet121",
    "dla34",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformerv2_s0",
    "efficientnet_lite0",
    "efficientvit_b0",
    "efficientvit_m0",
    "eva02_tiny_patch14_224",
    "fasternet_t0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "ghostnet_100",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "hrnet_w18_small",
    "inception_next_atto",
    "legacy_seresnet18",
    "levit_128s",
    "mambaout_femto",
    "maxvit_rmlp_pico_rw_256",
    "mixer_s32_224",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "mobilevit_xxs",
    "mvitv2_tiny",
    "naflexvit_base_patch16_gap",
    "nest_tiny",
    "nfnet_l0",
    "pit_ti_224",
    "poolformer_s12",
    "pvt_v2_b0",
    "regnetx_002",
    "repvit_m0_9",
    "res2net50_14w_8s",
    "resnest14d",
    "resnet10t",
    "resnet18d",
    "resnetv2_18",
    "rexnet_100",
    "seresnet18",
    "skresnet18",
    "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_ns_224",
    "swinv2_tiny_window8_256",
    "tiny_vit_5m_224",
    "tnt_s_patch16_224",
    "twins_svt_small",
    "vgg11_bn",
    "visformer_tiny",
    "vit_relpos_small_patch16_224",
    "vit_small_patch16_dinov3",
    "vit_tiny_patch16_224",
    "volo_d1_224",
    "vovnet39a",
    "xcit_nano_12_p16_224",
)
"""A small member of each; `test_every_network` builds all."""
COMPUTED = (
    "convnext_atto",
    "deit_tiny_distilled_patch16_224",
    "efficientnet_lite0",
    "eva02_tiny_patch14_224",
    "mobilenetv3_small_100",
    "regnetx_002",
    "resnet10t",
    "swin_tiny_patch4_window7_224",
    "vit_relpos_small_patch16_224",
    "xcit_nano_12_p16_224",
)


def named(name: str) -> Timm:
    """As timm's, also where an earlier family has that name."""
    found = Timm.named(name)
    assert found is not None
    return found


def on_meta(*size: int) -> Tensor:
    return torch.empty(2, 3, *size, device="meta")


def accepted(architecture: Timm) -> list[tuple[int, int]]:
    """The sizes, of some, that the network takes; its own first."""
    sizes = [architecture.image_size]
    for size in ((96, 128), (256, 224)):
        try:
            architecture.require_size(*size)
        except UserError:
            continue
        sizes.append(size)
    return sizes


@pytest.mark.parametrize("name", ONE_OF_EACH)
@torch.inference_mode()
def test_contract(name: str) -> None:
    """Channels, strides and widths are what they say, at every size that is accepted."""
    architecture = named(name)
    network = architecture.skeleton
    for height, width in accepted(architecture):
        pooled, maps = network.global_and_pyramid(on_meta(height, width))
        assert pooled.shape == (2, network.dim)
        assert list(maps) == list(network.stages)
        for stage, found in maps.items():
            said = network.stages[stage]
            assert found.shape[:2] == (2, said.channels)
            for side, pixels in zip(found.shape[2:], (height, width), strict=True):
                assert abs(side - pixels / said.stride) <= 1, stage
    everything = tuple(part for part in architecture.targets("+".join((*network.stages, "head"))))
    assert network.pooled(on_meta(*architecture.image_size), everything).shape == (2, network.width(everything))
    assert backbones.from_fields(backbones.to_fields(architecture)) == architecture
