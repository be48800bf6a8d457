"""ade20k_linear: BatchNorm and one linear layer on the frozen backbone, ADE20K; any backbone with a single scale.

Source: facebookresearch/dinov3@6876159 dinov3/eval/segmentation, with the values of its
configs/config-ade20k-linear-training.yaml: the last map, which has passed the final norm; AdamW, 40,000 steps, windows
of 512 pixels at 341. All other values are those of ade20k_seg (data, sizes, batch).

What differs from the source: the learning rate falls in a straight line (there: a cosine), and the last network counts
(there: the best of eight evaluations on val).
"""

_base_ = "ade20k_seg.py"
custom_imports = {
    "imports": [
        "cgh_bench.transfer_configs.openmmlab.carried",
        "cgh_bench.transfer_configs.openmmlab.linear_head",
        "cgh_bench.transfer_configs.openmmlab.segmentation_metric",
    ]
}
weights_into = ("backbone.network",)  # the module whose tensors are the checkpoint's

iterations = 40_000

model = {
    "data_preprocessor": {"test_cfg": {"size": (512, 512)}},
    "backbone": {
        "_delete_": True,
        "type": "Carried",
        "architecture": "vit_base_patch16_224",  # the task names the checkpoint here
        "drop_path": 0.0,
        "frozen": True,
    },
    "decode_head": {
        "_delete_": True,
        "type": "LinearHead",
        "in_channels": 768,
        "in_index": 3,
        "channels": 768,
        "dropout_ratio": 0.1,
        "num_classes": 150,
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
    },
    "auxiliary_head": None,
    "test_cfg": {"mode": "slide", "crop_size": (512, 512), "stride": (341, 341)},
}

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
optim_wrapper = {
    "optimizer": {"_delete_": True, "type": "AdamW", "lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-3}
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 1e-6, "by_epoch": False, "begin": 0, "end": 1500},
    {"type": "PolyLR", "eta_min": 0.0, "power": 1.0, "by_epoch": False, "begin": 1500, "end": iterations},
]
