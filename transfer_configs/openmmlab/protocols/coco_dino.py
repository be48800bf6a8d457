"""coco_dino: DINO, an end-to-end detector, on COCO, 12 epochs, for backbones with maps at strides 4 to 32, carried.

Source: Zhang et al., DINO: DETR with Improved DeNoising Anchor Boxes (https://arxiv.org/abs/2203.03605); mmdetection's
configs/dino/dino-5scale_swin-l_8xb2-12e_coco.py and dino-4scale_r50_8xb2-12e_coco.py, on which it is based (49.0 box AP
from supervised weights with four scales and a ResNet-50). This DINO is a detector; it has nothing to do with the
pretraining method of that name. Data and test sizes are those of coco_fpn.

What differs from the source: images are padded to multiples of 32, not of 1. Deformable attention is mmcv's in plain
PyTorch where mmcv has no compiled operators: the same numbers, slower and with more memory.
"""

_base_ = "coco_fpn.py"
custom_imports = {
    "imports": ["cgh_bench.transfer_configs.openmmlab.carried", "cgh_bench.transfer_configs.openmmlab.detection_metric"]
}
weights_into = ("backbone.network",)  # the module whose tensors are the checkpoint's

iterations = 88_716  # 12 epochs of 7,393: images without objects are trained on, too
data_root = "{{$CGH_DATA:./data}}/coco/"
levels = 5
short_sides = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
resize = {"type": "RandomChoiceResize", "scales": [(side, 1333) for side in short_sides], "keep_ratio": True}
feed_forward = {"embed_dims": 256, "feedforward_channels": 2048, "ffn_drop": 0.0}

model = {
    "_delete_": True,
    "type": "DINO",
    "num_queries": 900,
    "num_feature_levels": levels,
    "with_box_refine": True,
    "as_two_stage": True,
    "data_preprocessor": {
        "type": "DetDataPreprocessor",
        # The task sets these three from the checkpoint. Images are read as BGR.
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "bgr_to_rgb": True,
        "pad_size_divisor": 32,
    },
    "backbone": {
        "type": "Carried",
        "architecture": "swin_tiny_patch4_window7_224",  # the task names the checkpoint here
        "drop_path": 0.2,
        "frozen": False,
    },
    "neck": {
        "type": "ChannelMapper",
        "in_channels": [96, 192, 384, 768],
        "kernel_size": 1,
        "out_channels": 256,
        "act_cfg": None,
        "norm_cfg": {"type": "GN", "num_groups": 32},
        "num_outs": levels,
    },
    "encoder": {
        "num_layers": 6,
        "layer_cfg": {
            "self_attn_cfg": {"embed_dims": 256, "num_levels": levels, "dropout": 0.0},
            "ffn_cfg": feed_forward,
        },
    },
    "decoder": {
        "num_layers": 6,
        "return_intermediate": True,
        "layer_cfg": {
            "self_attn_cfg": {"embed_dims": 256, "num_heads": 8, "dropout": 0.0},
            "cross_attn_cfg": {"embed_dims": 256, "num_levels": levels, "dropout": 0.0},
            "ffn_cfg": feed_forward,
        },
        "post_norm_cfg": None,
    },
    "positional_encoding": {"num_feats": 128, "normalize": True, "offset": 0.0, "temperature": 20},
    "bbox_head": {
        "type": "DINOHead",
        "num_classes": 80,
        "sync_cls_avg_factor": True,
        "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 5.0},
        "loss_iou": {"type": "GIoULoss", "loss_weight": 2.0},
    },
    "dn_cfg": {
        "label_noise_scale": 0.5,
        "box_noise_scale": 1.0,
        "group_cfg": {"dynamic": True, "num_groups": None, "num_dn_queries": 100},
    },
    "train_cfg": {
        "assigner": {
            "type": "HungarianAssigner",
            "match_costs": [
                {"type": "FocalLossCost", "weight": 2.0},
                {"type": "BBoxL1Cost", "weight": 5.0, "box_format": "xywh"},
                {"type": "IoUCost", "iou_mode": "giou", "weight": 2.0},
            ],
        }
    },
    "test_cfg": {"max_per_img": 300},
}

train_dataloader = {
    "dataset": {
        "filter_cfg": {"filter_empty_gt": False},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True},
            {"type": "RandomFlip", "prob": 0.5},
            {
                "type": "RandomChoice",
                "transforms": [
                    [resize],
                    [
                        {**resize, "scales": [(side, 4200) for side in (400, 500, 600)]},
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
test_evaluator = {"masks": False}
custom_hooks = []

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
optim_wrapper = {
    "_delete_": True,
    "type": "OptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 1e-4},
    "paramwise_cfg": {"custom_keys": {"backbone": {"lr_mult": 0.1}}},
    "clip_grad": {"max_norm": 0.1, "norm_type": 2},
}
param_scheduler = [
    {"type": "MultiStepLR", "milestones": [81_323], "gamma": 0.1, "by_epoch": False, "begin": 0, "end": iterations},
]
