"""coco_frozen: Mask R-CNN on COCO whose backbone is frozen, 1x schedule, for any backbone, carried as it is.

It measures what the features hold without fine-tuning, and needs little memory: the backbone has no gradients. That
frozen backbones detect well: Vasconcelos et al., https://arxiv.org/abs/2204.00484. The values are ours: network,
data and steps of coco_fpn without its norms, trained by AdamW at ViTDet's rate; no published numbers are comparable. A
backbone with a single scale has ViTDet's simple feature pyramid.
"""

_base_ = "coco_fpn.py"
custom_imports = {
    "imports": ["cgh_bench.transfer_configs.openmmlab.carried", "cgh_bench.transfer_configs.openmmlab.detection_metric"]
}
weights_into = ("backbone.network",)  # the module whose tensors are the checkpoint's

model = {
    # The task names the checkpoint here; the necks' input is what its backbone has.
    "backbone": {"_delete_": True, "type": "Carried", "architecture": "resnet50", "drop_path": 0.0, "frozen": True},
    "neck": {"norm_cfg": None},
}
neck_of_one_scale = {"type": "SimpleFeaturePyramid", "out_channels": 256, "num_outs": 5}

custom_hooks = []  # no BatchNorm is trained
optim_wrapper = {
    "_delete_": True,
    "type": "OptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.05},
    "clip_grad": None,
}
