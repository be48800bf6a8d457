"""ade20k_upernet: UPerNet R50 on ADE20K's 150 classes, 160,000 iterations.

Source: Xiao et al., Unified Perceptual Parsing (https://arxiv.org/abs/1807.10221); mmsegmentation's
configs/upernet/upernet_r50_4xb4-160k_ade20k-512x512.py (42.05 mIoU from supervised weights, with ResNetV1c's stem).
All other values are those of ade20k_seg (data, optimiser) and voc_seg (auxiliary head).
"""

_base_ = "ade20k_seg.py"
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 160_000

model = {
    "backbone": {"strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1)},  # output stride 32, as pretrained
    "decode_head": {
        "_delete_": True,
        "type": "UPerHead",
        "in_channels": [256, 512, 1024, 2048],
        "in_index": [0, 1, 2, 3],
        "pool_scales": (1, 2, 3, 6),
        "channels": 512,
        "dropout_ratio": 0.1,
        "num_classes": 150,
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
    },
}

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
param_scheduler = [
    {"type": "PolyLR", "eta_min": 1e-4, "power": 0.9, "by_epoch": False, "begin": 0, "end": iterations},
]
