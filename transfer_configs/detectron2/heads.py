"""Region heads that detectron2 itself has not; a protocol names them in MODEL.ROI_HEADS.NAME."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads, StandardROIHeads
from torch import nn


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """The last stage with one norm more behind it, without activation.

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
    """Standard heads for images of another size: TRANSFER.CANONICAL_BOX_SIZE px long regions are read from level 4."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        """detectron2 has the size (224, of FPN's paper) as a constant."""
        made: dict[str, Any] = super().from_config(cfg, input_shape)
        for pooler in (made["box_pooler"], made["mask_pooler"]):
            pooler.canonical_box_size = cfg.TRANSFER.CANONICAL_BOX_SIZE
        return made
