"""voc_seg: FCN R50 with output stride 8 on PASCAL VOC 2012 and SBD, as DenseCL and mmselfsup compare.

Source: Wang et al., DenseCL (https://arxiv.org/abs/2011.09157), section 4; mmsegmentation's
configs/fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py, with the plain stem that checkpoints have in place of ResNetV1c's.
Every value is restated; nothing is inherited. Train on VOC2012 train and SBD (10,582 maps), test on VOC2012 val.

A crop that is smaller than 512×512 is padded after normalisation, by the data preprocessor, as in mmsegmentation 0.x
(`Normalize`, then `Pad`), with which the published numbers were made. mmsegmentation 1.x kept a `Pad` in this pipeline,
which now comes before normalisation and paints the margin black.

Published: MoCo v2 67.5, DenseCL 69.4 mIoU. With another batch than 16 or without SBD's maps people report 62 and 47
(WXinlong/DenseCL issues 38 and 19). Do not compare with voc_seg_moco.
"""

default_scope = "mmseg"
custom_imports = {"imports": ["cgh_bench.transfer_configs.openmmlab.segmentation_metric"]}
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 20_000
batch_size = 16  # of a whole step, over all GPUs
crop = (512, 512)
data_root = "{{$CGH_DATA:./data}}/VOCdevkit/VOC2012/"

norm = {"type": "SyncBN", "requires_grad": True}
model = {
    "type": "EncoderDecoder",
    "data_preprocessor": {
        "type": "SegDataPreProcessor",
        # The task sets these three from the checkpoint. Images are read as BGR.
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "bgr_to_rgb": True,
        "size": crop,
        "pad_val": 0,
        "seg_pad_val": 255,
    },
    "backbone": {
        "type": "ResNet",  # not mmseg's usual ResNetV1c, whose stem no checkpoint of ours has
        "depth": 50,
        "deep_stem": False,
        "style": "pytorch",
        "num_stages": 4,
        "out_indices": (0, 1, 2, 3),
        "strides": (1, 2, 1, 1),  # output stride 8
        "dilations": (1, 1, 2, 4),
        "contract_dilation": True,
        "frozen_stages": -1,
        "norm_cfg": norm,
        "norm_eval": False,
        "init_cfg": None,
    },
    "decode_head": {
        "type": "FCNHead",
        "in_channels": 2048,
        "in_index": 3,
        "channels": 512,
        "num_convs": 2,
        "concat_input": True,
        "dropout_ratio": 0.1,
        "num_classes": 21,
        "norm_cfg": norm,
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
    },
    "auxiliary_head": {
        "type": "FCNHead",
        "in_channels": 1024,
        "in_index": 2,
        "channels": 256,
        "num_convs": 1,
        "concat_input": False,
        "dropout_ratio": 0.1,
        "num_classes": 21,
        "norm_cfg": norm,
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 0.4},
    },
    "train_cfg": {},
    "test_cfg": {"mode": "whole"},
}

train_pipeline = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "RandomResize", "scale": (2048, 512), "ratio_range": (0.5, 2.0), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": crop, "cat_max_ratio": 0.75},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackSegInputs"},
]
train_dataloader = {
    "batch_size": batch_size,
    "num_workers": 4,
    "persistent_workers": True,
    "sampler": {"type": "InfiniteSampler", "shuffle": True},
    "dataset": {
        "type": "ConcatDataset",
        "datasets": [
            {
                "type": "PascalVOCDataset",
                "data_root": data_root,
                "data_prefix": {"img_path": "JPEGImages", "seg_map_path": maps},
                "ann_file": f"ImageSets/Segmentation/{split}.txt",
                "pipeline": train_pipeline,
            }
            for maps, split in (("SegmentationClass", "train"), ("SegmentationClassAug", "aug"))
        ],
    },
}
test_dataloader = {
    "batch_size": 1,
    "num_workers": 2,
    "sampler": {"type": "DefaultSampler", "shuffle": False},
    "dataset": {
        "type": "PascalVOCDataset",
        "data_root": data_root,
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "ann_file": "ImageSets/Segmentation/val.txt",
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (2048, 512), "keep_ratio": True},
            {"type": "LoadAnnotations"},  # after the resizing: IoU is that of the original pixels
            {"type": "PackSegInputs"},
        ],
    },
}
test_evaluator = {"type": "SemanticIoU"}

train_cfg = {"type": "IterBasedTrainLoop", "max_iters": iterations, "val_interval": iterations + 1}
test_cfg = {"type": "TestLoop"}
optim_wrapper = {
    "type": "OptimWrapper",  # full precision
    "optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
    "clip_grad": None,
}
param_scheduler = [
    {"type": "PolyLR", "eta_min": 1e-4, "power": 0.9, "by_epoch": False, "begin": 0, "end": iterations},
]
log_processor = {"by_epoch": False}
