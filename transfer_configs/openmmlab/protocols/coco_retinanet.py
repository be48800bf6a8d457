"""coco_retinanet: RetinaNet R50-FPN on COCO, 1x schedule, norm in backbone and FPN, all layers trained.

Source: detectron2's configs/COCO-Detection/retinanet_R_50_FPN_1x.yaml and Base-RetinaNet.yaml, with what MoCo changes
in coco_fpn (SyncBN in backbone and FPN, nothing frozen, PreciseBN, RGB), as the detectron2 benchmarks of DetCo and
mmselfsup 0.x do (coco_R_50_RetinaNet_1x_moco.yaml). The network, the learning rate and boxes without masks are here;
data, sizes and schedule are coco_fpn's, value by value. Boxes only.

Differs from detectron2's: mmdetection's FPN has the norm on P6 and P7 too, and the loss is divided by the positives of
its own batch, not by their running mean.
"""

_base_ = "coco_fpn.py"
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

norm = {"type": "SyncBN", "requires_grad": True}
model = {
    "_delete_": True,
    "type": "RetinaNet",
    "data_preprocessor": {
        "type": "DetDataPreprocessor",
        # The task sets these three from the checkpoint. Images are read as BGR.
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "bgr_to_rgb": True,
        "pad_size_divisor": 32,
    },
    "backbone": _base_.model.backbone,
    "neck": {
        "type": "FPN",
        "in_channels": [256, 512, 1024, 2048],
        "out_channels": 256,
        "start_level": 1,
        "num_outs": 5,
        "add_extra_convs": "on_input",  # detectron2: P6 from the backbone's last stage
        "relu_before_extra_convs": True,  # P7
        "norm_cfg": norm,
    },
    "bbox_head": {
        "type": "RetinaHead",
        "num_classes": 80,
        "in_channels": 256,
        "stacked_convs": 4,
        "feat_channels": 256,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "octave_base_scale": 4,  # 32 to 512 px, three to an octave
            "scales_per_octave": 3,
            "ratios": [0.5, 1.0, 2.0],
            "strides": [8, 16, 32, 64, 128],
        },
        "bbox_coder": {
            "type": "DeltaXYWHBBoxCoder",
            "target_means": [0.0, 0.0, 0.0, 0.0],
            "target_stds": [1.0, 1.0, 1.0, 1.0],
        },
        "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
    },
    "train_cfg": {
        "assigner": {
            "type": "MaxIoUAssigner",
            "pos_iou_thr": 0.5,
            "neg_iou_thr": 0.4,
            "min_pos_iou": 0.0,
            "match_low_quality": True,
            "ignore_iof_thr": -1,
        },
        "sampler": {"type": "PseudoSampler"},  # focal loss takes all
        "allowed_border": -1,
        "pos_weight": -1,
        "debug": False,
    },
    "test_cfg": {
        "nms_pre": 1000,
        "min_bbox_size": 0,
        "score_thr": 0.05,
        "nms": {"type": "nms", "iou_threshold": 0.5},
        "max_per_img": 100,
    },
}

train_dataloader = {
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True},
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
test_evaluator = {"masks": False}
optim_wrapper = {"optimizer": {"lr": 0.01}}
