"""A segmentation head of one linear layer.

Source: the linear evaluation of DINOv2 (https://arxiv.org/abs/2304.07193, section 7.4): a norm, then a 1x1 convolution.
"""

from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """Class scores (B, C, h, w) of features (B, D, h, w); the norm layer makes it independent of their scale."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "channels": options["in_channels"]})
        self.norm = build_norm_layer(self.norm_cfg, self.in_channels)[1]

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Scores for the feature maps of the backbone."""
        return self.cls_seg(self.norm(self._transform_inputs(inputs)))
