"""coco_fpn: Mask R-CNN R50-FPN on COCO, 1x schedule, heads without norm, as MoCo and DetCo compare.

Source: He et al., Momentum Contrast (https://arxiv.org/abs/1911.05722), section 4.2.2: detectron2's Mask R-CNN R50-FPN
with SyncBN in backbone and FPN only, the stock head of two fully connected layers, PreciseBN, short sides 640 to 800;
as its authors confirm in facebookresearch/moco issue 34. Every value is restated; nothing is inherited.

Do not compare with coco_fpn_4conv1fc: the same weights score up to 1.8 box AP apart. Published: random init 31.0 box
and 28.5 mask AP, supervised 38.9 and 35.4 (MoCo's table 5).
"""

default_scope = "mmdet"
custom_imports = {
    "imports": [
        "cgh_bench.transfer_configs.openmmlab.detection_metric",
        "cgh_bench.transfer_configs.openmmlab.precise_bn",
    ]
}
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 90_000
batch_size = 16  # of a whole step, over all GPUs
data_root = "{{$CGH_DATA:./data}}/coco/"

norm = {"type": "SyncBN", "requires_grad": True}
model = {
    "type": "MaskRCNN",
    "data_preprocessor": {
        "type": "DetDataPreprocessor",
        # The task sets these three from the checkpoint. Images are read as BGR.
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "bgr_to_rgb": True,
        "pad_mask": True,
        "pad_size_divisor": 32,
    },
    "backbone": {
        "type": "ResNet",
        "depth": 50,
        "deep_stem": False,
        "style": "pytorch",  # the stride is in the 3x3 convolution
        "num_stages": 4,
        "strides": (1, 2, 2, 2),
        "dilations": (1, 1, 1, 1),
        "out_indices": (0, 1, 2, 3),
        "frozen_stages": -1,  # FREEZE_AT 0: all layers are trained
        "norm_cfg": norm,
        "norm_eval": False,
        "init_cfg": None,
    },
    "neck": {
        "type": "FPN",
        "in_channels": [256, 512, 1024, 2048],
        "out_channels": 256,
        "num_outs": 5,  # the fifth by max-pooling
        "add_extra_convs": False,
        "norm_cfg": norm,
    },
    "rpn_head": {
        "type": "RPNHead",
        "in_channels": 256,
        "feat_channels": 256,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [8],  # 32 to 512 px
            "ratios": [0.5, 1.0, 2.0],
            "strides": [4, 8, 16, 32, 64],
        },
        "bbox_coder": {
            "type": "DeltaXYWHBBoxCoder",
            "target_means": [0.0, 0.0, 0.0, 0.0],
            "target_stds": [1.0, 1.0, 1.0, 1.0],
        },
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
    },
    "roi_head": {
        "type": "StandardRoIHead",
        "bbox_roi_extractor": {
            "type": "SingleRoIExtractor",
            "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0, "aligned": True},
            "out_channels": 256,
            "featmap_strides": [4, 8, 16, 32],
            "finest_scale": 56,
        },
        "bbox_head": {
            "type": "Shared2FCBBoxHead",
            "in_channels": 256,
            "fc_out_channels": 1024,
            "roi_feat_size": 7,
            "num_classes": 80,
            "bbox_coder": {
                "type": "DeltaXYWHBBoxCoder",
                "target_means": [0.0, 0.0, 0.0, 0.0],
                "target_stds": [0.1, 0.1, 0.2, 0.2],
            },
            "reg_class_agnostic": False,
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "mask_roi_extractor": {
            "type": "SingleRoIExtractor",
            "roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 0, "aligned": True},
            "out_channels": 256,
            "featmap_strides": [4, 8, 16, 32],
            "finest_scale": 56,
        },
        "mask_head": {
            "type": "FCNMaskHead",
            "num_convs": 4,
            "in_channels": 256,
            "conv_out_channels": 256,
            "num_classes": 80,
            "class_agnostic": False,
            "norm_cfg": None,
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        },
    },
    "train_cfg": {
        "rpn": {
            "assigner": {
                "type": "MaxIoUAssigner",
                "pos_iou_thr": 0.7,
                "neg_iou_thr": 0.3,
                "min_pos_iou": 0.0,  # detectron2: the best anchor of every object, however bad
                "match_low_quality": True,
                "ignore_iof_thr": -1,
            },
            "sampler": {
                "type": "RandomSampler",
                "num": 256,
                "pos_fraction": 0.5,
                "neg_pos_ub": -1,
                "add_gt_as_proposals": False,
            },
            "allowed_border": -1,  # anchors may stand over the edge
            "pos_weight": -1,
            "debug": False,
        },
        "rpn_proposal": {
            "nms_pre": 2000,  # of each level
            "max_per_img": 1000,
            "nms": {"type": "nms", "iou_threshold": 0.7},
            "min_bbox_size": 0,
        },
        "rcnn": {
            "assigner": {
                "type": "MaxIoUAssigner",
                "pos_iou_thr": 0.5,
                "neg_iou_thr": 0.5,
                "min_pos_iou": 0.5,
                "match_low_quality": False,
                "ignore_iof_thr": -1,
            },
            "sampler": {
                "type": "RandomSampler",
                "num": 512,
                "pos_fraction": 0.25,
                "neg_pos_ub": -1,
                "add_gt_as_proposals": True,
            },
            "mask_size": 28,
            "pos_weight": -1,
            "debug": False,
        },
    },
    "test_cfg": {
        "rpn": {
            "nms_pre": 1000,  # of each level
            "max_per_img": 1000,
            "nms": {"type": "nms", "iou_threshold": 0.7},
            "min_bbox_size": 0,
        },
        "rcnn": {
            "score_thr": 0.05,
            "nms": {"type": "nms", "iou_threshold": 0.5},
            "max_per_img": 100,
            "mask_thr_binary": 0.5,
        },
    },
}

train_dataloader = {
    "batch_size": batch_size,
    "num_workers": 4,
    "persistent_workers": True,
    "sampler": {"type": "InfiniteSampler", "shuffle": True},
    "batch_sampler": {"type": "AspectRatioBatchSampler"},
    "dataset": {
        "type": "CocoDataset",
        "data_root": data_root,
        "ann_file": "annotations/instances_train2017.json",
        "data_prefix": {"img": "train2017/"},
        "filter_cfg": {"filter_empty_gt": True, "min_size": 1},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True, "poly2mask": False},
            {
                "type": "RandomChoiceResize",
                "scales": [(1333, 640), (1333, 672), (1333, 704), (1333, 736), (1333, 768), (1333, 800)],
                "keep_ratio": True,
            },
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackDetInputs"},
        ],
    },
}
test_dataloader = {
    "batch_size": 1,
    "num_workers": 2,
    "sampler": {"type": "DefaultSampler", "shuffle": False},
    "dataset": {
        "type": "CocoDataset",
        "data_root": data_root,
        "ann_file": "annotations/instances_val2017.json",
        "data_prefix": {"img": "val2017/"},
        "test_mode": True,
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (1333, 800), "keep_ratio": True},
            {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
        ],
    },
}
test_evaluator = {
    "type": "InstanceAP",
    "ann_file": f"{data_root}annotations/instances_val2017.json",
    "masks": True,
}
custom_hooks = [{"type": "PreciseBN", "iterations": 200}]

train_cfg = {"type": "IterBasedTrainLoop", "max_iters": iterations, "val_interval": iterations + 1}
test_cfg = {"type": "TestLoop"}
optim_wrapper = {
    "type": "OptimWrapper",  # full precision
    "optimizer": {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4},
    "paramwise_cfg": {"norm_decay_mult": 0.0},  # detectron2's WEIGHT_DECAY_NORM
    "clip_grad": None,
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 1000},
    {
        "type": "MultiStepLR",
        "milestones": [60_000, 80_000],
        "gamma": 0.1,
        "by_epoch": False,
        "begin": 0,
        "end": iterations,
    },
]
log_processor = {"by_epoch": False}
