"""The last stage in the head of a C4 detector, with one norm more behind it.

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
    """mmdet's `ResLayer` and a norm of its output (R, 2048, h, w), without activation; the norm is `norm`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        width: int = getattr(self, f"layer{self.stage + 1}")[-1].norm3.num_features
        self.norm = build_norm_layer(self.norm_cfg, width)[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the features (R, 1024, H, W) of every region."""
        normed: torch.Tensor = self.norm(super().forward(x))
        return normed
