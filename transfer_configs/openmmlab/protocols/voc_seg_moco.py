"""voc_seg_moco: FCN R50 with output stride 16 on PASCAL VOC 2012 and SBD, as MoCo and DetCo compare.

Source: He et al., Momentum Contrast (https://arxiv.org/abs/1911.05722), table 6 and appendix: the 3x3 convolutions of
the last stage have dilation 2 and stride 1; two more of 256 channels with dilation 6, norm and ReLU, and a 1x1
classifier; no auxiliary head; scales of .5 to 2, crops, flips; tested on the original image. MoCo's code for it was
never released (facebookresearch/moco issues 55 and 65); aligned corners and no dropout are of the one public port,
CVMI-Lab/SlotCon (commit d510e65) transfer/segmentation/configs/voc12aug, which differs in scaling to a short side of
513 px first, and whose images are normalised by statistics of another range. Crop, batch, rate, weight decay and steps
are also in an independent account of the appendix, https://geekdaxue.co/read/tangbukun@gqshhc/cs4ach. All other values
are those of voc_seg.
"""

_base_ = "voc_seg.py"
custom_imports = {
    "imports": [
        "cgh_bench.transfer_configs.openmmlab.own_size",
        "cgh_bench.transfer_configs.openmmlab.segmentation_metric",
    ]
}
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 30_000
crop = (513, 513)

model = {
    "data_preprocessor": {"size": crop},
    "backbone": {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "contract_dilation": False},
    "decode_head": {
        "channels": 256,
        "num_convs": 2,
        "dilation": 6,
        "concat_input": False,
        "dropout_ratio": 0.0,
        "align_corners": True,
    },
    "auxiliary_head": None,
}

train_pipeline = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "RandomResizeOfOwnSize", "ratio_range": (0.5, 2.0)},
    {"type": "RandomCrop", "crop_size": crop, "cat_max_ratio": 1.0},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PackSegInputs"},
]
train_dataloader = {
    "dataset": {
        "datasets": [dict(part, pipeline=train_pipeline) for part in _base_.train_dataloader.dataset.datasets],
    },
}
test_dataloader = {
    "dataset": {
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}],
    },
}

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
optim_wrapper = {"optimizer": {"lr": 0.003, "weight_decay": 1e-4}}
param_scheduler = [
    {
        "type": "MultiStepLR",
        "milestones": [21_000, 27_000],  # 70 and 90 per cent
        "gamma": 0.1,
        "by_epoch": False,
        "begin": 0,
        "end": iterations,
    },
]
