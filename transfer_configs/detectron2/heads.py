"""Region heads that detectron2 does not have; a protocol names them in MODEL.ROI_HEADS.NAME."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads, StandardROIHeads
from torch import nn


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """The last stage followed by one more norm layer, without activation.

    Source: He et al., Momentum Contrast (https://arxiv.org/abs/1911.05722), appendix on detection; name as in
    facebookresearch/moco@f515ef4 detection/train_net.py.
    """

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        stage, width = super()._build_res5_block(cfg)
        stage.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, width))
        return stage, width


@ROI_HEADS_REGISTRY.register()
class ScaledROIHeads(StandardROIHeads):
    """Standard heads for another image size: regions of TRANSFER.CANONICAL_BOX_SIZE pixels are read from level 4.

    With TRANSFER.INIT_AS_MMDETECTION the two layers that mmdetection initialises otherwise start as there.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        """As in detectron2, where the size is a constant (224, from the paper on FPN)."""
        made: dict[str, Any] = super().from_config(cfg, input_shape)
        for pooler in (made["box_pooler"], made["mask_pooler"]):
            pooler.canonical_box_size = cfg.TRANSFER.CANONICAL_BOX_SIZE
        if cfg.TRANSFER.INIT_AS_MMDETECTION:
            nn.init.xavier_uniform_(made["box_head"].fc1.weight)
            nn.init.kaiming_normal_(made["mask_head"].predictor.weight, mode="fan_out", nonlinearity="relu")
        return made
