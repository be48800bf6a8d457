"""animals_seg: FCN with ResNet-18 on the semantic maps of the embedded animal scenes (128 px), for a CPU.

Nothing is inherited. Ten animals and background; every layer is trained, BatchNorm included. Architecture: Long et al.,
Fully Convolutional Networks (https://arxiv.org/abs/1411.4038), with a dilated last stage.
"""

default_scope = "mmseg"
custom_imports = {"imports": ["cgh_bench.transfer_configs.openmmlab.segmentation_metric"]}
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 300
batch_size = 8  # of a whole step, over all GPUs
classes = (
    "background",
    "bear",
    "bird",
    "cat",
    "cow",
    "dog",
    "elephant",
    "giraffe",
    "horse",
    "sheep",
    "zebra",
)
palette = [[25 * index] * 3 for index in range(11)]
data_root = "{{$CGH_DATA:./data}}/animal_scenes/"

norm = {"type": "BN", "requires_grad": True}
model = {
    "type": "EncoderDecoder",
    "data_preprocessor": {
        "type": "SegDataPreProcessor",
        # The task sets these three from the checkpoint. Images are read as BGR.
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "bgr_to_rgb": True,
        "size": (128, 128),
        "pad_val": 0,
        "seg_pad_val": 255,
    },
    "backbone": {
        "type": "ResNet",  # not mmseg's usual ResNetV1c, whose stem no checkpoint of ours has
        "depth": 18,
        "deep_stem": False,
        "style": "pytorch",
        "num_stages": 4,
        "out_indices": (0, 1, 2, 3),
        "strides": (1, 2, 2, 1),  # output stride 16
        "dilations": (1, 1, 1, 2),
        "contract_dilation": True,
        "frozen_stages": -1,
        "norm_cfg": norm,
        "norm_eval": False,
        "init_cfg": None,
    },
    "decode_head": {
        "type": "FCNHead",
        "in_channels": 512,
        "in_index": 3,
        "channels": 64,
        "num_convs": 1,
        "concat_input": False,
        "dropout_ratio": 0.1,
        "num_classes": 11,
        "norm_cfg": norm,
        "align_corners": False,
        "loss_decode": {
            "type": "CrossEntropyLoss",
            "use_sigmoid": False,
            "loss_weight": 1.0,
            # Nine pixels of ten are background, and a short training would find nothing else.
            "class_weight": [0.25] + [1.0] * 10,
        },
    },
    "train_cfg": {},
    "test_cfg": {"mode": "whole"},
}

train_dataloader = {
    "batch_size": batch_size,
    "num_workers": 0,
    "sampler": {"type": "InfiniteSampler", "shuffle": True},
    "dataset": {
        "type": "BaseSegDataset",
        "data_root": data_root,
        "data_prefix": {"img_path": "train/images", "seg_map_path": "train/masks"},
        "img_suffix": ".png",
        "seg_map_suffix": ".png",
        "metainfo": {"classes": classes, "palette": palette},
        "reduce_zero_label": False,
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackSegInputs"},
        ],
    },
}
test_dataloader = {
    "batch_size": 8,
    "num_workers": 0,
    "sampler": {"type": "DefaultSampler", "shuffle": False},
    "dataset": {
        "type": "BaseSegDataset",
        "data_root": data_root,
        "data_prefix": {"img_path": "val/images", "seg_map_path": "val/masks"},
        "img_suffix": ".png",
        "seg_map_suffix": ".png",
        "metainfo": {"classes": classes, "palette": palette},
        "reduce_zero_label": False,
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "PackSegInputs"},
        ],
    },
}
test_evaluator = {"type": "SemanticIoU"}

train_cfg = {"type": "IterBasedTrainLoop", "max_iters": iterations, "val_interval": iterations + 1}
test_cfg = {"type": "TestLoop"}
optim_wrapper = {
    "type": "OptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 5e-4, "weight_decay": 0.05},
    # The head starts from nothing: at the backbone's rate 200 steps cannot even move its logits off the background.
    "paramwise_cfg": {"custom_keys": {"decode_head": {"lr_mult": 10.0}}},
    "clip_grad": None,
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.05, "by_epoch": False, "begin": 0, "end": 10},
    {"type": "PolyLR", "eta_min": 0.0, "power": 0.9, "by_epoch": False, "begin": 10, "end": iterations},
]
log_processor = {"by_epoch": False}
