"""coco_cascade: Cascade Mask R-CNN on COCO, 1x schedule, for any backbone with a single scale, carried as it is.

Source: Zhou et al., iBOT (https://arxiv.org/abs/2111.07832); bytedance/ibot@da316d8 evaluation/object_detection/
configs/cascade_rcnn/vit_base_giou_4conv1f_coco_3x.py and _base_/models/cascade_mask_rcnn_vit_fpn.py with the command of
evaluation/README.md for ViT-B (12 epochs, layer decay .75; ViT-S has .8, and drop path .1). Augmentation is DETR's. All
other values are those of coco_fpn (mask head, test).

Three things are the backbone's own and differ from iBOT's: each map has passed the final norm, positions have no weight
decay, and the blocks are those at 1/3, 1/2, 2/3 and the end.
"""

_base_ = "coco_fpn.py"
custom_imports = {
    "imports": [
        "cgh_bench.transfer_configs.openmmlab.carried",
        "cgh_bench.transfer_configs.openmmlab.detection_metric",
        "mmseg.models.necks.featurepyramid",
    ]
}
weights_into = ("backbone.network",)  # the module whose tensors are the checkpoint's

iterations = 87_960  # 12 epochs of 7,330
norm = {"type": "SyncBN", "requires_grad": True}
fpn = {
    "type": "FPN",
    "in_channels": [768, 768, 768, 768],
    "out_channels": 256,
    "num_outs": 5,
    "add_extra_convs": False,
    "norm_cfg": None,
}
stages = ((0.5, (0.1, 0.1, 0.2, 0.2)), (0.6, (0.05, 0.05, 0.1, 0.1)), (0.7, (0.033, 0.033, 0.067, 0.067)))
short_sides = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
resize = {"type": "RandomChoiceResize", "scales": [(side, 1333) for side in short_sides], "keep_ratio": True}

model = {
    "type": "CascadeRCNN",
    "backbone": {
        "_delete_": True,
        "type": "Carried",
        "architecture": "vit_base_patch16_224",  # the task names the checkpoint here
        "drop_path": 0.2,
        "frozen": False,
    },
    "neck": {"_delete_": True, **fpn},
    "rpn_head": {"loss_bbox": {"_delete_": True, "type": "SmoothL1Loss", "beta": 1.0 / 9.0, "loss_weight": 1.0}},
    "roi_head": {
        "type": "CascadeRoIHead",
        "num_stages": 3,
        "stage_loss_weights": [1.0, 0.5, 0.25],
        "bbox_head": [
            {
                "type": "ConvFCBBoxHead",
                "num_shared_convs": 4,
                "num_shared_fcs": 1,
                "in_channels": 256,
                "conv_out_channels": 256,
                "fc_out_channels": 1024,
                "roi_feat_size": 7,
                "num_classes": 80,
                "bbox_coder": {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": list(stds)},
                "reg_class_agnostic": False,
                "reg_decoded_bbox": True,
                "norm_cfg": norm,
                "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
                "loss_bbox": {"type": "GIoULoss", "loss_weight": 10.0},
            }
            for _, stds in stages
        ],
    },
    "train_cfg": {
        "rpn": {"assigner": {"min_pos_iou": 0.3}, "allowed_border": 0},
        "rpn_proposal": {"max_per_img": 2000},
        "rcnn": [
            {
                "assigner": {
                    "type": "MaxIoUAssigner",
                    "pos_iou_thr": overlap,
                    "neg_iou_thr": overlap,
                    "min_pos_iou": overlap,
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
            }
            for overlap, _ in stages
        ],
    },
}
neck_of_one_scale = [{"type": "mmseg.Feature2Pyramid", "norm_cfg": norm}, fpn]

train_dataloader = {
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True, "poly2mask": True},
            {"type": "RandomFlip", "prob": 0.5},
            {
                "type": "RandomChoice",
                "transforms": [
                    [resize],
                    [
                        {**resize, "scales": [(side, 1333) for side in (400, 500, 600)]},
                        {
                            "type": "RandomCrop",
                            "crop_type": "absolute_range",
                            "crop_size": (384, 600),
                            "allow_negative_crop": True,
                        },
                        resize,
                    ],
                ],
            },
            {"type": "PackDetInputs"},
        ],
    },
}
custom_hooks = []  # the backbone has no BatchNorm

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
optim_wrapper = {
    "_delete_": True,
    "type": "AmpOptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.05},
    "constructor": "LayerDecay",
    "paramwise_cfg": {"decay": 0.75, "by_stage": False, "layers": None, "undecayed": "vectors"},
    "clip_grad": None,
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 500},
    {
        "type": "MultiStepLR",
        "milestones": [58_640, 80_630],
        "gamma": 0.1,
        "by_epoch": False,
        "begin": 0,
        "end": iterations,
    },
]
