"""ade20k_seg: FCN R50 with output stride 8 on ADE20K's 150 classes, 80,000 iterations.

Source: mmsegmentation's configs/fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py. All other values are those of voc_seg
(network, optimiser, sizes). Train on training, test on validation. No published comparison of self-supervised backbones
under exactly this protocol is known.
"""

_base_ = "voc_seg.py"
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 80_000
crop = (512, 512)
data_root = "{{$CGH_DATA:./data}}/ADEChallengeData2016/"

model = {"decode_head": {"num_classes": 150}, "auxiliary_head": {"num_classes": 150}}

train_dataloader = {
    "dataset": {
        "_delete_": True,
        "type": "ADE20KDataset",
        "data_root": data_root,
        "data_prefix": {"img_path": "images/training", "seg_map_path": "annotations/training"},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "reduce_zero_label": True},  # 0 is no class
            {"type": "RandomResize", "scale": (2048, 512), "ratio_range": (0.5, 2.0), "keep_ratio": True},
            {"type": "RandomCrop", "crop_size": crop, "cat_max_ratio": 0.75},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PhotoMetricDistortion"},
            {"type": "PackSegInputs"},
        ],
    },
}
test_dataloader = {
    "dataset": {
        "_delete_": True,
        "type": "ADE20KDataset",
        "data_root": data_root,
        "data_prefix": {"img_path": "images/validation", "seg_map_path": "annotations/validation"},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (2048, 512), "keep_ratio": True},
            {"type": "LoadAnnotations", "reduce_zero_label": True},
            {"type": "PackSegInputs"},
        ],
    },
}

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
param_scheduler = [
    {"type": "PolyLR", "eta_min": 1e-4, "power": 0.9, "by_epoch": False, "begin": 0, "end": iterations},
]
