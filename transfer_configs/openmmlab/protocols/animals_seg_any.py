"""animals_seg_any: UPerNet on the semantic maps of the embedded animal scenes for any backbone, carried as it is.

Architecture: Xiao et al., UPerNet (https://arxiv.org/abs/1807.10221), with a narrow head. A backbone with a single
scale has the pyramid of BEiT and MAE below it (Bao et al., https://arxiv.org/abs/2106.08254; mmsegmentation's
Feature2Pyramid). Data, optimiser and schedule are those of animals_seg.
"""

_base_ = "animals_seg.py"
custom_imports = {
    "imports": [
        "cgh_bench.transfer_configs.openmmlab.carried",
        "cgh_bench.transfer_configs.openmmlab.segmentation_metric",
    ]
}
weights_into = ("backbone.network",)  # the module whose tensors are the checkpoint's

norm = {"type": "BN", "requires_grad": True}
model = {
    "data_preprocessor": {"test_cfg": {"size_divisor": 32}},
    # The task names the checkpoint here; the input of neck and heads is what its backbone has.
    "backbone": {"_delete_": True, "type": "Carried", "architecture": "resnet18", "drop_path": 0.0, "frozen": False},
    "decode_head": {
        "_delete_": True,
        "type": "UPerHead",
        "in_index": [0, 1, 2, 3],
        "pool_scales": (1, 2, 3, 6),
        "channels": 64,
        "dropout_ratio": 0.1,
        "num_classes": 11,
        "norm_cfg": norm,
        "align_corners": False,
        "loss_decode": {
            "type": "CrossEntropyLoss",
            "use_sigmoid": False,
            "loss_weight": 1.0,
            "class_weight": [0.25] + [1.0] * 10,  # as in animals_seg
        },
    },
}
neck_of_one_scale = {"type": "Feature2Pyramid", "norm_cfg": norm}
