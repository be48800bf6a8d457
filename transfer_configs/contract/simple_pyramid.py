"""ViTDet's pyramid of a backbone with one scale, the same in every framework.

Source: Li et al., Exploring Plain Vision Transformer Backbones (https://arxiv.org/abs/2203.16527), section 3.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cgh_bench.transfer_configs.contract.carried import STRIDES


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of maps (B, C, h, w)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the same shape."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimpleFeaturePyramid(nn.Module):
    """Maps at `STRIDES` of the last map of a backbone: rescaled, then a 1x1 and a 3x3 convolution with norms.

    Args:
        in_channels: of the map.
        stride: of the map, 8 or 16.
        out_channels: of the maps that are returned.
        num_outs: five adds a map at stride 64, every second position of the one before.
    """

    def __init__(self, in_channels: int, stride: int, out_channels: int, num_outs: int = len(STRIDES)) -> None:
        super().__init__()
        self.channels, self.num_outs = out_channels, num_outs
        self.levels = nn.ModuleList()
        for wanted in STRIDES:
            layers, width = _rescaling(in_channels, round(math.log2(stride / wanted)))
            self.levels.append(
                nn.Sequential(
                    *layers,
                    nn.Conv2d(width, out_channels, kernel_size=1, bias=False),
                    ChannelNorm(out_channels),
                    nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
                    ChannelNorm(out_channels),
                )
            )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The pyramid of the last of `maps`, (B, C, h, w) each."""
        found = [level(maps[-1]) for level in self.levels]
        if self.num_outs > len(found):
            found.append(torch.nn.functional.max_pool2d(found[-1], kernel_size=1, stride=2))
        return tuple(found)


def _rescaling(width: int, doublings: int) -> tuple[list[nn.Module], int]:
    """Layers that double the sides of a map so often (halve them, if negative), and the channels after them."""
    if doublings < 0:
        return [nn.MaxPool2d(2**-doublings)], width
    layers: list[nn.Module] = []
    for number in range(doublings):
        layers += [ChannelNorm(width), nn.GELU()] if number else []
        layers.append(nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2))
        width //= 2
    return layers, width
