"""The last stage in the head of a C4 detector, followed by one more norm layer.

Source: He et al., Momentum Contrast (https://arxiv.org/abs/1911.05722), appendix on detection; as in
facebookresearch/moco detection/train_net.py.
"""

from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmdet.models.roi_heads.shared_heads import ResLayer
from mmdet.registry import MODELS


@MODELS.register_module()
class ResLayerExtraNorm(ResLayer):
    """`ResLayer` of mmdet, then a norm layer (`norm`) on its output (R, 2048, h, w), without activation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        width: int = getattr(self, f"layer{self.stage + 1}")[-1].norm3.num_features
        self.norm = build_norm_layer(self.norm_cfg, width)[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to the features (R, 1024, H, W) of all regions."""
        return self.norm(super().forward(x))
