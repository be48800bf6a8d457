"""coco_vitdet: ViTDet's Mask R-CNN on COCO, 100 epochs, for any backbone with a single scale, carried as it is.

Source: Li et al., Exploring Plain Vision Transformer Backbones (https://arxiv.org/abs/2203.16527);
facebookresearch/detectron2@02b5c4e configs/common/models/mask_rcnn_vitdet.py, projects/ViTDet/configs/COCO/
mask_rcnn_vitdet_b_100ep.py and projects/ViTDet/configs/common/coco_loader_lsj.py. Layer decay and drop path are those
of ViT-B (L has .8 and .4, H .9 and .5). All other values are those of coco_fpn (anchors, sampling, losses, test).

Three things are the backbone's own and differ from ViTDet's: attention is global in every block (there: windows of 14
patches, but for four blocks), no relative positions are added, and the last map has passed the final norm. So published
numbers of ViTDet (51.6 box AP from MAE's ViT-B) are a guide, no reference.
"""

_base_ = "coco_fpn.py"
custom_imports = {
    "imports": ["cgh_bench.transfer_configs.openmmlab.carried", "cgh_bench.transfer_configs.openmmlab.detection_metric"]
}
weights_into = ("backbone.network",)  # the module whose tensors are the checkpoint's

iterations = 184_375  # 100 epochs
batch_size = 64  # of a whole step, over all GPUs
side = 1024
data_root = "{{$CGH_DATA:./data}}/coco/"

norm = {"type": "ChannelNorm", "eps": 1e-6}
model = {
    "data_preprocessor": {"pad_size_divisor": side},  # every image a square, in training and test
    "backbone": {
        "_delete_": True,
        "type": "Carried",
        "architecture": "vit_base_patch16_224",  # the task names the checkpoint here
        "drop_path": 0.1,
        "frozen": False,
    },
    "rpn_head": {"num_convs": 2},
    "roi_head": {
        "bbox_head": {
            "type": "ConvFCBBoxHead",
            "num_shared_convs": 4,
            "num_shared_fcs": 1,
            "conv_out_channels": 256,
            "norm_cfg": norm,
        },
        "mask_head": {"norm_cfg": {"_delete_": True, **norm}},
    },
}
neck_of_one_scale = {"type": "SimpleFeaturePyramid", "out_channels": 256, "num_outs": 5}

train_dataloader = {
    "batch_size": batch_size,
    "batch_sampler": None,
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True, "poly2mask": True},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "RandomResize", "scale": (side, side), "ratio_range": (0.1, 2.0), "keep_ratio": True},
            {
                "type": "RandomCrop",
                "crop_size": (side, side),
                "crop_type": "absolute",
                "recompute_bbox": True,
                "allow_negative_crop": True,
            },
            {"type": "FilterAnnotations", "min_gt_bbox_wh": (1e-5, 1e-5)},
            {"type": "PackDetInputs"},
        ],
    },
}
test_dataloader = {
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (side, side), "keep_ratio": True},
            {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
        ],
    },
}
custom_hooks = []  # no BatchNorm

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
optim_wrapper = {
    "_delete_": True,
    "type": "AmpOptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.1},
    "constructor": "LayerDecay",
    "paramwise_cfg": {"decay": 0.7, "by_stage": False, "layers": None, "undecayed": "norms"},
    "clip_grad": None,
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 250},
    {
        "type": "MultiStepLR",
        "milestones": [163_889, 177_546],
        "gamma": 0.1,
        "by_epoch": False,
        "begin": 0,
        "end": iterations,
    },
]
