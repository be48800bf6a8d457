"""The carried backbone in detectron2; a protocol names `build_carried_backbone` in MODEL.BACKBONE.NAME."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

from cgh_bench.transfer_configs.contract.carried import STRIDES, Carried
from cgh_bench.transfer_configs.contract.simple_pyramid import SimpleFeaturePyramid


class BottomUp(Carried, Backbone):
    """The maps under detectron2's names, res2 to res5."""

    def __init__(self, config: CfgNode) -> None:
        super().__init__(config.TRANSFER.ARCHITECTURE, config.TRANSFER.DROP_PATH, config.MODEL.BACKBONE.FREEZE_AT > 0)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides by name."""
        shapes = zip(self.layout.channels, self.layout.strides, strict=True)
        return {f"res{n}": ShapeSpec(channels=width, stride=stride) for n, (width, stride) in enumerate(shapes, 2)}

    def forward(self, images: torch.Tensor) -> Any:
        """The maps of `images` (B, 3, H, W) by name."""
        return dict(zip(self.output_shape(), super().forward(images), strict=True))


class OneScale(Backbone):
    """ViTDet's pyramid of a backbone with one scale, p2 to p6."""

    def __init__(self, bottom_up: BottomUp, channels: int, side: int) -> None:
        super().__init__()
        self.bottom_up, self.side = bottom_up, side
        last = bottom_up.layout
        self.fpn = SimpleFeaturePyramid(last.channels[-1], last.strides[-1], channels, num_outs=5)

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Sides are multiples of 32, or all images squares, so that positions are where they were in training."""
        return {"size_divisibility": STRIDES[-1], "square_size": self.side}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides by name."""
        width = self.fpn.channels
        return {f"p{n}": ShapeSpec(channels=width, stride=2**n) for n in range(2, 7)}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The pyramid of `images` (B, 3, H, W) by name."""
        maps = list(self.bottom_up(images).values())
        return dict(zip(self.output_shape(), self.fpn(maps), strict=True))


@BACKBONE_REGISTRY.register()
def build_carried_backbone(config: CfgNode, _: Any) -> Backbone:
    """The backbone with an FPN or, if it has one scale, ViTDet's pyramid."""
    bottom_up = BottomUp(config)
    if bottom_up.layout.is_single_scale:
        return OneScale(bottom_up, config.MODEL.FPN.OUT_CHANNELS, config.TRANSFER.SCALE_JITTER)
    return FPN(
        bottom_up=bottom_up,
        in_features=config.MODEL.FPN.IN_FEATURES,
        out_channels=config.MODEL.FPN.OUT_CHANNELS,
        norm=config.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=config.MODEL.FPN.FUSE_TYPE,
    )
