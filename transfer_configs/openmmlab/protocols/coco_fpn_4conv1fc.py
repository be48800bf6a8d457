"""coco_fpn_4conv1fc: Mask R-CNN R50-FPN on COCO, 1x schedule, with SyncBN and convolutions in the heads too.

Source: Tian et al., InfoMin (https://arxiv.org/abs/2005.10243); its detectron2 configuration is HobbitLong/PyContrast
pycontrast/detection/configs/R_50_FPN_1x.yaml and R_50_FPN_1x_infomin.yaml, over detectron2's defaults. PixPro, DenseCL,
InsLoc, SlotCon and LEWEL use the same heads; CGH's repository has two linear layers (detection/configs/
Base-RCNN-FPN.yaml) and no command for FPN. All other values are those of coco_fpn.

Do not compare with coco_fpn: the same weights score up to 1.8 box AP apart. Published: random init 32.8 box and 29.9
mask AP, supervised 39.7 and 35.9.
"""

_base_ = "coco_fpn.py"
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

norm = {"type": "SyncBN", "requires_grad": True}
model = {
    "roi_head": {
        "bbox_head": {"type": "Shared4Conv1FCBBoxHead", "conv_out_channels": 256, "norm_cfg": norm},
        "mask_head": {"norm_cfg": {"_delete_": True, **norm}},
    },
}
