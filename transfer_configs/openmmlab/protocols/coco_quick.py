"""coco_quick: Faster R-CNN with FPN on COCO, boxes only, a tenth of the 1x schedule at 320 px, for any backbone.

For small budgets: a first ranking, or data of one's own. Images have .4 of the usual sides, and so have the anchors and
the regions that a level reads; steps are a tenth of coco_fpn's. The values are ours: numbers are lower than those of
full protocols and comparable with each other alone; that they rank backbones alike has not been measured. Trained by
AdamW at ViTDet's rate, so that ResNets and transformers need no settings of their own. All other values are those of
coco_fpn. A backbone with a single scale has ViTDet's simple feature pyramid.
"""

_base_ = "coco_fpn.py"
custom_imports = {
    "imports": ["cgh_bench.transfer_configs.openmmlab.carried", "cgh_bench.transfer_configs.openmmlab.detection_metric"]
}
weights_into = ("backbone.network",)  # the module whose tensors are the checkpoint's

iterations = 9_000

model = {
    "type": "FasterRCNN",
    "data_preprocessor": {"pad_mask": False},
    # The task names the checkpoint here; the necks' input is what its backbone has.
    "backbone": {"_delete_": True, "type": "Carried", "architecture": "resnet50", "drop_path": 0.0, "frozen": False},
    "neck": {"norm_cfg": None},
    "rpn_head": {"anchor_generator": {"scales": [4]}},  # 16 to 256 px
    "roi_head": {"bbox_roi_extractor": {"finest_scale": 28}, "mask_head": None},
}
neck_of_one_scale = {"type": "SimpleFeaturePyramid", "out_channels": 256, "num_outs": 5}

train_dataloader = {
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True},
            {
                "type": "RandomChoiceResize",
                "scales": [(533, 256), (533, 272), (533, 288), (533, 304), (533, 320)],
                "keep_ratio": True,
            },
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackDetInputs"},
        ],
    },
}
test_dataloader = {
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (533, 320), "keep_ratio": True},
            {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
        ],
    },
}
test_evaluator = {"masks": False}
custom_hooks = []  # BatchNorm's statistics are those of the training

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
optim_wrapper = {
    "_delete_": True,
    "type": "OptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.05},
    "clip_grad": None,
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 250},
    {
        "type": "MultiStepLR",
        "milestones": [6_000, 8_000],
        "gamma": 0.1,
        "by_epoch": False,
        "begin": 0,
        "end": iterations,
    },
]
