"""animals_det: Mask R-CNN with ResNet-18 and FPN on the embedded animal scenes (128 px), small enough for a CPU.

Nothing is inherited. Every layer is trained, BatchNorm included, everywhere and for every row: random weights under
frozen BatchNorm explode. Architecture: He et al., Mask R-CNN (https://arxiv.org/abs/1703.06870), Lin et al., FPN
(https://arxiv.org/abs/1612.03144), narrow heads; the published protocols of the field are in the other files.
"""

default_scope = "mmdet"
custom_imports = {"imports": ["cgh_bench.transfer_configs.openmmlab.detection_metric"]}
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 250
batch_size = 8  # of a whole step, over all GPUs
classes = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
data_root = "{{$CGH_DATA:./data}}/animal_scenes/"

norm = {"type": "BN", "requires_grad": True}
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
        "depth": 18,
        "deep_stem": False,
        "style": "pytorch",
        "num_stages": 4,
        "out_indices": (0, 1, 2, 3),
        "frozen_stages": -1,
        "norm_cfg": norm,
        "norm_eval": False,
        "init_cfg": None,
    },
    "neck": {
        "type": "FPN",
        "in_channels": [64, 128, 256, 512],
        "out_channels": 64,
        "num_outs": 4,
        "norm_cfg": norm,
    },
    "rpn_head": {
        "type": "RPNHead",
        "in_channels": 64,
        "feat_channels": 64,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [4],  # 16, 32, 64 and 128 px: animals are 32 to 71 px long
            "ratios": [0.5, 1.0, 2.0],
            "strides": [4, 8, 16, 32],
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
            "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 2},
            "out_channels": 64,
            "featmap_strides": [4, 8, 16, 32],
            "finest_scale": 14,  # of a 128 px image, as 56 of an 800 px one
        },
        "bbox_head": {
            "type": "Shared2FCBBoxHead",
            "in_channels": 64,
            "fc_out_channels": 256,
            "roi_feat_size": 7,
            "num_classes": 10,
            "bbox_coder": {
                "type": "DeltaXYWHBBoxCoder",
                "target_means": [0.0, 0.0, 0.0, 0.0],
                "target_stds": [0.1, 0.1, 0.2, 0.2],
            },
            "reg_class_agnostic": True,
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "mask_roi_extractor": {
            "type": "SingleRoIExtractor",
            "roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 2},
            "out_channels": 64,
            "featmap_strides": [4, 8, 16, 32],
            "finest_scale": 14,
        },
        "mask_head": {
            "type": "FCNMaskHead",
            "num_convs": 2,
            "in_channels": 64,
            "conv_out_channels": 64,
            "num_classes": 10,
            "class_agnostic": True,
            "norm_cfg": norm,
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        },
    },
    "train_cfg": {
        "rpn": {
            "assigner": {
                "type": "MaxIoUAssigner",
                "pos_iou_thr": 0.7,
                "neg_iou_thr": 0.3,
                "min_pos_iou": 0.3,
                "match_low_quality": True,
                "ignore_iof_thr": -1,
            },
            "sampler": {
                "type": "RandomSampler",
                "num": 128,
                "pos_fraction": 0.5,
                "neg_pos_ub": -1,
                "add_gt_as_proposals": False,
            },
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
        "rpn_proposal": {
            "nms_pre": 500,
            "max_per_img": 200,
            "nms": {"type": "nms", "iou_threshold": 0.7},
            "min_bbox_size": 0,
        },
        "rcnn": {
            "assigner": {
                "type": "MaxIoUAssigner",
                "pos_iou_thr": 0.5,
                "neg_iou_thr": 0.5,
                "min_pos_iou": 0.5,
                "match_low_quality": True,
                "ignore_iof_thr": -1,
            },
            "sampler": {
                "type": "RandomSampler",
                "num": 64,
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
            "nms_pre": 200,
            "max_per_img": 50,
            "nms": {"type": "nms", "iou_threshold": 0.7},
            "min_bbox_size": 0,
        },
        "rcnn": {
            "score_thr": 0.05,
            "nms": {"type": "nms", "iou_threshold": 0.5},
            "max_per_img": 20,
            "mask_thr_binary": 0.5,
        },
    },
}

train_dataloader = {
    "batch_size": batch_size,
    "num_workers": 0,
    "sampler": {"type": "InfiniteSampler", "shuffle": True},
    "dataset": {
        "type": "CocoDataset",
        "data_root": data_root,
        "ann_file": "train/annotations.json",
        "data_prefix": {"img": "train/images/"},
        "metainfo": {"classes": classes},
        "filter_cfg": {"filter_empty_gt": True, "min_size": 1},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True, "poly2mask": True},
            {"type": "Resize", "scale": (128, 128), "keep_ratio": True},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackDetInputs"},
        ],
    },
}
test_dataloader = {
    "batch_size": 8,
    "num_workers": 0,
    "sampler": {"type": "DefaultSampler", "shuffle": False},
    "dataset": {
        "type": "CocoDataset",
        "data_root": data_root,
        "ann_file": "val/annotations.json",
        "data_prefix": {"img": "val/images/"},
        "metainfo": {"classes": classes},
        "test_mode": True,
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (128, 128), "keep_ratio": True},
            {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
        ],
    },
}
test_evaluator = {"type": "InstanceAP", "ann_file": f"{data_root}val/annotations.json", "masks": True}

train_cfg = {"type": "IterBasedTrainLoop", "max_iters": iterations, "val_interval": iterations + 1}
test_cfg = {"type": "TestLoop"}
optim_wrapper = {
    "type": "OptimWrapper",
    # In so few steps SGD leaves every row at the level of random weights.
    "optimizer": {"type": "AdamW", "lr": 5e-4, "weight_decay": 0.05},
    "clip_grad": {"max_norm": 10.0},
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.05, "by_epoch": False, "begin": 0, "end": 20},
    {"type": "CosineAnnealingLR", "eta_min": 0.0, "by_epoch": False, "begin": 20, "end": iterations},
]
log_processor = {"by_epoch": False}
