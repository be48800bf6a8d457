"""cityscapes_inst: Mask R-CNN R50-FPN on Cityscapes' instances, 24,000 iterations of eight images.

Source: He et al., Momentum Contrast (https://arxiv.org/abs/1911.05722), table 6; sizes and schedule of detectron2's
configs/Cityscapes/mask_rcnn_R_50_FPN.yaml, without its start from COCO. Network and norms are coco_fpn's, value by
value. Train on train_fine, test on val by Cityscapes' own evaluation (cityscapesScripts): mask AP and AP50.
"""

_base_ = "coco_fpn.py"
custom_imports = {
    "imports": [
        "cgh_bench.transfer_configs.openmmlab.cityscapes_metric",
        "cgh_bench.transfer_configs.openmmlab.precise_bn",
    ]
}
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 24_000
batch_size = 8  # of a whole step, over all GPUs
data_root = "{{$CGH_DATA:./data}}/cityscapes/"

model = {"roi_head": {"bbox_head": {"num_classes": 8}, "mask_head": {"num_classes": 8}}}

train_dataloader = {
    "batch_size": batch_size,
    "dataset": {
        "type": "CityscapesDataset",
        "data_root": data_root,
        "ann_file": "annotations/instancesonly_filtered_gtFine_train.json",
        "data_prefix": {"_delete_": True, "img": "leftImg8bit/train/"},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True, "poly2mask": True},
            {
                "type": "RandomChoiceResize",  # short sides of 800 to 1024
                "scales": [(2048, short) for short in range(800, 1025, 32)],
                "keep_ratio": True,
            },
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackDetInputs"},
        ],
    },
}
test_dataloader = {
    "dataset": {
        "type": "CityscapesDataset",
        "data_root": data_root,
        "ann_file": "annotations/instancesonly_filtered_gtFine_val.json",
        "data_prefix": {"_delete_": True, "img": "leftImg8bit/val/"},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (2048, 1024), "keep_ratio": True},
            {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
        ],
    },
}
test_evaluator = {"_delete_": True, "type": "CityscapesAP"}

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
optim_wrapper = {"optimizer": {"lr": 0.01}}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 1000},
    {"type": "MultiStepLR", "milestones": [18_000], "gamma": 0.1, "by_epoch": False, "begin": 0, "end": iterations},
]
