"""voc_det: Faster R-CNN R50-C4 on PASCAL VOC 07+12, 24,000 iterations, the standard comparison since MoCo.

Source: He et al., Momentum Contrast (https://arxiv.org/abs/1911.05722), section 4.2.1 and appendix;
facebookresearch/moco (commit f515ef4) detection/configs/pascal_voc_R_50_C4_24k_moco.yaml. Network, optimiser and norms
are coco_det's, value by value (extra norm after res5, PreciseBN); what differs is here. Train on VOC2007 trainval and
VOC2012 trainval, difficult objects too, as detectron2 does; test on VOC2007 test.

AP is that of VOC 2007 at eleven points, its mean over IoU .50 to .95: not COCO's. Report the mean of five runs: their
standard deviation is about .2, .2, .4 of AP50, AP, AP75. Published: random init 60.2 AP50, 33.8 AP, 33.1 AP75;
supervised 81.3, 53.5, 58.8. Runs in mmdetection were reported 1 to 2 AP50 lower than in detectron2.
"""

_base_ = "coco_det.py"
custom_imports = {
    "imports": [
        "cgh_bench.transfer_configs.openmmlab.extra_norm",
        "cgh_bench.transfer_configs.openmmlab.precise_bn",
        "cgh_bench.transfer_configs.openmmlab.voc",
    ]
}
weights_into = ("backbone", "roi_head.shared_head")  # the modules whose tensors are the checkpoint's

iterations = 24_000
data_root = "{{$CGH_DATA:./data}}/VOCdevkit/"

model = {
    "type": "FasterRCNN",
    "data_preprocessor": {"pad_mask": False},
    "roi_head": {"bbox_head": {"num_classes": 20}, "mask_head": None},
}

train_pipeline = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {
        "type": "RandomChoiceResize",  # short sides of 480 to 800
        "scales": [(1333, short) for short in range(480, 801, 32)],
        "keep_ratio": True,
    },
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PackDetInputs"},
]
train_dataloader = {
    "dataset": {
        "_delete_": True,
        "type": "ConcatDataset",
        "datasets": [
            {
                "type": "VocBoxes",
                "data_root": data_root,
                "ann_file": f"{year}/ImageSets/Main/trainval.txt",
                "data_prefix": {"sub_data_root": f"{year}/"},
                "filter_cfg": {"filter_empty_gt": True},
                "pipeline": train_pipeline,
            }
            for year in ("VOC2007", "VOC2012")
        ],
    },
}
test_dataloader = {
    "dataset": {
        "_delete_": True,
        "type": "VocBoxes",
        "data_root": data_root,
        "ann_file": "VOC2007/ImageSets/Main/test.txt",
        "data_prefix": {"sub_data_root": "VOC2007/"},
        "test_mode": True,
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (1333, 800), "keep_ratio": True},
            {"type": "LoadAnnotations", "with_bbox": True},  # after the resizing: for the metric, not for the network
            {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
        ],
    },
}
test_evaluator = {"_delete_": True, "type": "ElevenPointAP"}

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 100},
    {
        "type": "MultiStepLR",
        "milestones": [18_000, 22_000],
        "gamma": 0.1,
        "by_epoch": False,
        "begin": 0,
        "end": iterations,
    },
]
