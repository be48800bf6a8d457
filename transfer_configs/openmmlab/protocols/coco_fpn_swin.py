"""coco_fpn_swin: Mask R-CNN with FPN on COCO for any backbone with maps at strides 4 to 32, carried as it is.

Source: Liu et al., Swin Transformer (https://arxiv.org/abs/2103.14030); mmdetection's configs/swin/
mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py, 12 epochs (42.7 box and 39.3 mask AP). Anchors, sampling, losses and test are
those of coco_fpn, which differ in details (the best anchor of every object is positive).

The backbone's own: its maps are not normed (there: one more norm on each).
"""

_base_ = "coco_fpn.py"
custom_imports = {
    "imports": ["cgh_bench.transfer_configs.openmmlab.carried", "cgh_bench.transfer_configs.openmmlab.detection_metric"]
}
weights_into = ("backbone.network",)  # the module whose tensors are the checkpoint's

iterations = 87_960  # 12 epochs of 7,330

model = {
    "backbone": {
        "_delete_": True,
        "type": "Carried",
        "architecture": "swin_tiny_patch4_window7_224",  # the task names the checkpoint here
        "drop_path": 0.2,
        "frozen": False,
    },
    "neck": {"norm_cfg": None},
}

train_dataloader = {
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True, "poly2mask": False},
            {"type": "Resize", "scale": (1333, 800), "keep_ratio": True},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackDetInputs"},
        ],
    },
}
custom_hooks = []  # no BatchNorm

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
optim_wrapper = {
    "_delete_": True,
    "type": "OptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.05},
    "constructor": "LayerDecay",
    "paramwise_cfg": {"decay": 1.0, "by_stage": True, "layers": None, "undecayed": "norms"},
    "clip_grad": None,
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 1000},
    {
        "type": "MultiStepLR",
        "milestones": [58_640, 80_630],
        "gamma": 0.1,
        "by_epoch": False,
        "begin": 0,
        "end": iterations,
    },
]
