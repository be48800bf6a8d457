"""coco_det: Mask R-CNN R50-C4 on COCO, 1x schedule, as self-supervised backbones are compared since MoCo.

Source: He et al., Momentum Contrast (https://arxiv.org/abs/1911.05722), section 4.2.2 and appendix; its detectron2
configuration is facebookresearch/moco detection/configs/Base-RCNN-C4-BN.yaml and coco_R_50_C4_2x_moco.yaml (there is no
1x file: 1x is the same with 90,000 iterations), over detectron2's defaults. Every value is restated; nothing is
inherited. Differs from it: SyncBN where MoCo has its naive form (the same on equal batches of each GPU).

Train on train2017, test on val2017, COCO's metric. MoCo's table 5: random init 26.4 box and 29.3 mask AP, supervised
38.2 box AP. A difference of 0.3 AP is ordinary noise between runs (facebookresearch/moco issue 39).
"""

default_scope = "mmdet"
custom_imports = {
    "imports": [
        "cgh_bench.transfer_configs.openmmlab.detection_metric",
        "cgh_bench.transfer_configs.openmmlab.extra_norm",
        "cgh_bench.transfer_configs.openmmlab.precise_bn",
    ]
}
weights_into = ("backbone", "roi_head.shared_head")  # the modules whose tensors are the checkpoint's
not_in_weights = ("roi_head.shared_head.norm.",)

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
        "pad_size_divisor": 1,  # detectron2 pads a C4 batch to its largest image only
    },
    "backbone": {
        "type": "ResNet",
        "depth": 50,
        "deep_stem": False,
        "style": "pytorch",  # the stride is in the 3x3 convolution
        "num_stages": 3,
        "strides": (1, 2, 2),
        "dilations": (1, 1, 1),
        "out_indices": (2,),
        "frozen_stages": -1,  # FREEZE_AT 0: all layers are trained
        "norm_cfg": norm,
        "norm_eval": False,
        "init_cfg": None,
    },
    "rpn_head": {
        "type": "RPNHead",
        "in_channels": 1024,
        "feat_channels": 1024,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [2, 4, 8, 16, 32],  # 32 to 512 px
            "ratios": [0.5, 1.0, 2.0],
            "strides": [16],
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
        "shared_head": {
            "type": "ResLayerExtraNorm",
            "depth": 50,
            "stage": 3,
            "stride": 2,
            "dilation": 1,
            "style": "pytorch",
            "norm_cfg": norm,
            "norm_eval": False,
            "init_cfg": None,
        },
        "bbox_roi_extractor": {
            "type": "SingleRoIExtractor",
            "roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 0, "aligned": True},
            "out_channels": 1024,
            "featmap_strides": [16],
        },
        "bbox_head": {
            "type": "BBoxHead",
            "with_avg_pool": True,
            "roi_feat_size": 7,
            "in_channels": 2048,
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
        "mask_roi_extractor": None,  # the mask branch reads the shared head's features
        "mask_head": {
            "type": "FCNMaskHead",
            "num_convs": 0,
            "in_channels": 2048,
            "conv_out_channels": 256,
            "num_classes": 80,
            "class_agnostic": False,
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
            "nms_pre": 12000,
            "max_per_img": 2000,
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
            "mask_size": 14,
            "pos_weight": -1,
            "debug": False,
        },
    },
    "test_cfg": {
        "rpn": {
            "nms_pre": 6000,
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
