"""ade20k_upernet_swin: UPerNet on ADE20K for any backbone with maps at strides 4 to 32, carried as it is.

Source: Liu et al., Swin Transformer (https://arxiv.org/abs/2103.14030); mmsegmentation's configs/swin/
swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py (44.4 mIoU). All other values are those of
ade20k_upernet (head, data) and voc_seg (auxiliary head). Learning rates are the same in all layers.

The backbone's own: its maps are not normed (there: one more norm on each), and test images are padded to multiples of
32.
"""

_base_ = "ade20k_upernet.py"
custom_imports = {
    "imports": [
        "cgh_bench.transfer_configs.openmmlab.carried",
        "cgh_bench.transfer_configs.openmmlab.segmentation_metric",
    ]
}
weights_into = ("backbone.network",)  # the module whose tensors are the checkpoint's

iterations = 160_000

model = {
    "data_preprocessor": {"test_cfg": {"size_divisor": 32}},
    "backbone": {
        "_delete_": True,
        "type": "Carried",
        "architecture": "swin_tiny_patch4_window7_224",  # the task names the checkpoint here
        "drop_path": 0.3,
        "frozen": False,
    },
    "test_cfg": {"mode": "whole"},
}

optim_wrapper = {
    "_delete_": True,
    "type": "OptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 6e-5, "betas": (0.9, 0.999), "weight_decay": 0.01},
    "constructor": "LayerDecay",
    "paramwise_cfg": {"decay": 1.0, "by_stage": True, "layers": None, "undecayed": "norms"},
    "clip_grad": None,
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 1e-6, "by_epoch": False, "begin": 0, "end": 1500},
    {"type": "PolyLR", "eta_min": 0.0, "power": 1.0, "by_epoch": False, "begin": 1500, "end": iterations},
]
