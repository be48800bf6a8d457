"""cityscapes_seg: FCN R50 with output stride 8 on Cityscapes, crops of 769 px, 40,000 iterations of eight images.

Source: mmsegmentation's configs/fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769.py, which mmselfsup's benchmark inherits.
All other values are those of voc_seg (network, optimiser). Train on train_fine, test on val, in windows.
"""

_base_ = "voc_seg.py"
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 40_000
batch_size = 8  # of a whole step, over all GPUs
crop = (769, 769)
data_root = "{{$CGH_DATA:./data}}/cityscapes/"

model = {
    "data_preprocessor": {"size": crop},
    "decode_head": {"num_classes": 19, "align_corners": True},
    "auxiliary_head": {"num_classes": 19, "align_corners": True},
    "test_cfg": {"mode": "slide", "crop_size": crop, "stride": (513, 513)},
}

train_dataloader = {
    "batch_size": batch_size,
    "dataset": {
        "_delete_": True,
        "type": "CityscapesDataset",
        "data_root": data_root,
        "data_prefix": {"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "RandomResize", "scale": (2049, 1025), "ratio_range": (0.5, 2.0), "keep_ratio": True},
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
        "type": "CityscapesDataset",
        "data_root": data_root,
        "data_prefix": {"img_path": "leftImg8bit/val", "seg_map_path": "gtFine/val"},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (2049, 1025), "keep_ratio": True},
            {"type": "LoadAnnotations"},  # after the resizing: IoU is that of the original pixels
            {"type": "PackSegInputs"},
        ],
    },
}

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
param_scheduler = [
    {"type": "PolyLR", "eta_min": 1e-4, "power": 0.9, "by_epoch": False, "begin": 0, "end": iterations},
]
