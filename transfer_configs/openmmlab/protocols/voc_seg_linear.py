"""voc_seg_linear: one linear layer on the frozen backbone (output stride 8), on PASCAL VOC 2012 and SBD.

Source: Oquab et al., DINOv2 (https://arxiv.org/abs/2304.07193), section 7.4, whose configuration (dinov2's
vitb14_voc2012_linear) gives the head, the optimiser, the schedule and the windows of the test. Ours are the backbone, a
ResNet dilated as in voc_seg, and SBD's maps beside VOC's. All other values are those of voc_seg (data, sizes, batch).
It measures the features of the frozen backbone, not what fine-tuning makes of them; no published results are known.
"""

_base_ = "voc_seg.py"
custom_imports = {
    "imports": [
        "cgh_bench.transfer_configs.openmmlab.linear_head",
        "cgh_bench.transfer_configs.openmmlab.segmentation_metric",
    ]
}
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 40_000

model = {
    "backbone": {"frozen_stages": 4, "norm_eval": True},
    "decode_head": {
        "_delete_": True,
        "type": "LinearHead",
        "in_channels": 2048,
        "in_index": 3,
        "channels": 2048,
        "dropout_ratio": 0.0,
        "num_classes": 21,
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
    },
    "auxiliary_head": None,
    "test_cfg": {"mode": "slide", "crop_size": (512, 512), "stride": (341, 341)},
}

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
optim_wrapper = {"optimizer": {"_delete_": True, "type": "AdamW", "lr": 1e-3, "weight_decay": 1e-4}}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 1e-6, "by_epoch": False, "begin": 0, "end": 1500},
    {"type": "PolyLR", "eta_min": 0.0, "power": 1.0, "by_epoch": False, "begin": 1500, "end": iterations},
]
