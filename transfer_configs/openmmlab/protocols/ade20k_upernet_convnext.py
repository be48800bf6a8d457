"""ade20k_upernet_convnext: UPerNet on ADE20K for any backbone with maps at strides 4 to 32, carried as it is.

Source: Liu et al., A ConvNet for the 2020s (https://arxiv.org/abs/2201.03545); mmsegmentation's configs/convnext/
convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py (46.1 mIoU; for S and B only `layers` differs: 12). All other
values are those of ade20k_upernet (head, data) and voc_seg (auxiliary head).

The backbone's own: its maps are not normed (there: one more norm on each), and where learning rates are decayed, a
downsampling layer belongs to the stage that it opens (there: all of them to the stem).
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
    "data_preprocessor": {"test_cfg": {"size": (512, 512)}},
    "backbone": {
        "_delete_": True,
        "type": "Carried",
        "architecture": "convnext_tiny",  # the task names the checkpoint here
        "drop_path": 0.4,
        "frozen": False,
    },
    "test_cfg": {"mode": "slide", "crop_size": (512, 512), "stride": (341, 341)},
}

optim_wrapper = {
    "_delete_": True,
    "type": "AmpOptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.05},
    "constructor": "LayerDecay",
    "paramwise_cfg": {"decay": 0.9, "by_stage": True, "layers": 6, "undecayed": "vectors"},
    "clip_grad": None,
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 1e-6, "by_epoch": False, "begin": 0, "end": 1500},
    {"type": "PolyLR", "eta_min": 0.0, "power": 1.0, "by_epoch": False, "begin": 1500, "end": iterations},
]
