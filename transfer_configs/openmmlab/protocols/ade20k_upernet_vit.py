"""ade20k_upernet_vit: UPerNet on ADE20K for any backbone with a single scale, carried as it is.

Source: mmsegmentation's configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py: UPerNet as BEiT built it
(https://arxiv.org/abs/2106.08254) on the blocks at 1/3, 1/2, 2/3 and the end, with MAE's values for ViT-B (48.1 mIoU in
MAE's paper, https://arxiv.org/abs/2111.06377). All other values are those of ade20k_upernet (data) and voc_seg
(auxiliary head). iBOT's are the same but for lr 7e-4.

Two things are the backbone's own: each map has passed the final norm (iBOT's out_with_norm; MAE's have not), and no
relative positions are added.
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
        "architecture": "vit_base_patch16_224",  # the task names the checkpoint here
        "drop_path": 0.1,
        "frozen": False,
    },
    "decode_head": {"channels": 768},
    "test_cfg": {"mode": "slide", "crop_size": (512, 512), "stride": (341, 341)},
}
neck_of_one_scale = {"type": "Feature2Pyramid", "norm_cfg": {"type": "SyncBN", "requires_grad": True}}

optim_wrapper = {
    "_delete_": True,
    "type": "AmpOptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.05},
    "constructor": "LayerDecay",
    "paramwise_cfg": {"decay": 0.65, "by_stage": False, "layers": None, "undecayed": "vectors"},
    "clip_grad": None,
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 1e-6, "by_epoch": False, "begin": 0, "end": 1500},
    {"type": "PolyLR", "eta_min": 0.0, "power": 1.0, "by_epoch": False, "begin": 1500, "end": iterations},
]
