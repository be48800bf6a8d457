"""cityscapes_seg_moco: FCN R50 with output stride 16 on Cityscapes, 90,000 iterations, as MoCo and DetCo compare.

Source: He et al., Momentum Contrast (https://arxiv.org/abs/1911.05722), table 6 and appendix; see voc_seg_moco, whose
network this has, value by value. Steps, rate, milestones and crop are in CVMI-Lab/SlotCon (commit d510e65) only,
transfer/segmentation/configs/_base_/{schedules/schedule_90k_moco,datasets/cityscapes_769x769_moco}.py. Train on
train_fine, test on val, the whole image at its own size.
"""

_base_ = "voc_seg_moco.py"
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 90_000
crop = (769, 769)
data_root = "{{$CGH_DATA:./data}}/cityscapes/"

model = {"data_preprocessor": {"size": crop}, "decode_head": {"num_classes": 19}}

train_dataloader = {
    "dataset": {
        "_delete_": True,
        "type": "CityscapesDataset",
        "data_root": data_root,
        "data_prefix": {"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "RandomResizeOfOwnSize", "ratio_range": (0.5, 2.0)},
            {"type": "RandomCrop", "crop_size": crop, "cat_max_ratio": 1.0},
            {"type": "RandomFlip", "prob": 0.5},
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
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}],
    },
}

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
optim_wrapper = {"optimizer": {"lr": 0.01}}
param_scheduler = [
    {
        "type": "MultiStepLR",
        "milestones": [63_000, 81_000],  # 70 and 90 per cent
        "gamma": 0.1,
        "by_epoch": False,
        "begin": 0,
        "end": iterations,
    },
]
