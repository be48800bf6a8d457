"""The values of segmentation protocols as they take effect, against their sources."""

from collections.abc import Mapping
from typing import Any

import pytest

pytest.importorskip("mmseg")

from mmengine.config import Config

from cgh_bench.foreign import frameworks

FOLDER = frameworks.find("mmseg").path
TRAINED = {  # of every one but voc_seg_linear
    "model.type": "EncoderDecoder",
    "model.backbone.depth": 50,
    "model.backbone.frozen_stages": -1,
    "model.backbone.norm_eval": False,
    "model.backbone.norm_cfg.type": "SyncBN",
    "model.decode_head.norm_cfg.type": "SyncBN",
    "model.data_preprocessor.seg_pad_val": 255,
    "optim_wrapper.type": "OptimWrapper",  # full precision
    "optim_wrapper.clip_grad": None,
    "optim_wrapper.optimizer.type": "SGD",
    "optim_wrapper.optimizer.momentum": 0.9,
    "optim_wrapper.paramwise_cfg": None,  # norms decay, too
    "test_evaluator.type": "SemanticIoU",
}
POLY = {"param_scheduler.0.type": "PolyLR", "param_scheduler.0.power": 0.9, "param_scheduler.0.eta_min": 1e-4}
FCN_D8 = {  # mmsegmentation's configs/_base_/models/fcn_r50-d8.py and schedules/schedule_20k.py
    "model.backbone.strides": (1, 2, 1, 1),
    "model.backbone.dilations": (1, 1, 2, 4),
    "model.decode_head.type": "FCNHead",
    "model.decode_head.channels": 512,
    "model.decode_head.num_convs": 2,
    "model.decode_head.concat_input": True,
    "model.decode_head.dropout_ratio": 0.1,
    "model.auxiliary_head.loss_decode.loss_weight": 0.4,
    "optim_wrapper.optimizer.lr": 0.01,
    "optim_wrapper.optimizer.weight_decay": 5e-4,
    "train.2.ratio_range": (0.5, 2.0),
    "train.3.cat_max_ratio": 0.75,
    "train.5.type": "PhotoMetricDistortion",
    **POLY,
}
VOC_D8 = FCN_D8 | {  # fcn_r50-d8_4xb4-20k_voc12aug-512x512.py: D2 of DenseCL and mmselfsup
    "train_cfg.max_iters": 20_000,
    "train_dataloader.batch_size": 16,
    "model.decode_head.num_classes": 21,
    "model.decode_head.align_corners": False,
    "model.test_cfg.mode": "whole",
    "train.2.scale": (2048, 512),
    "train.3.crop_size": (512, 512),
    "test.1.scale": (2048, 512),
    "train_dataloader.dataset.datasets.0.ann_file": "ImageSets/Segmentation/train.txt",
    "train_dataloader.dataset.datasets.1.ann_file": "ImageSets/Segmentation/aug.txt",
    "train_dataloader.dataset.datasets.1.data_prefix.seg_map_path": "SegmentationClassAug",
    "test_dataloader.dataset.ann_file": "ImageSets/Segmentation/val.txt",
}
CITYSCAPES_D8 = FCN_D8 | {  # fcn_r50-d8_4xb2-40k_cityscapes-769x769.py: D3
    "train_cfg.max_iters": 40_000,
    "train_dataloader.batch_size": 8,
    "model.decode_head.num_classes": 19,
    "model.auxiliary_head.num_classes": 19,
    "model.decode_head.align_corners": True,
    "model.auxiliary_head.align_corners": True,
    "model.test_cfg.mode": "slide",
    "model.test_cfg.crop_size": (769, 769),
    "model.test_cfg.stride": (513, 513),
    "train.2.scale": (2049, 1025),
    "train.3.crop_size": (769, 769),
}
ADE = FCN_D8 | {  # fcn_r50-d8_4xb4-80k_ade20k-512x512.py: D4
    "train_cfg.max_iters": 80_000,
    "train_dataloader.batch_size": 16,
    "model.decode_head.num_classes": 150,
    "model.auxiliary_head.num_classes": 150,
    "model.test_cfg.mode": "whole",
    "train.1.reduce_zero_label": True,
    "test.2.reduce_zero_label": True,
    "train.3.crop_size": (512, 512),
}
UPERNET = ADE | {  # upernet_r50_4xb4-160k_ade20k-512x512.py
    "train_cfg.max_iters": 160_000,
    "model.backbone.strides": (1, 2, 2, 2),
    "model.backbone.dilations": (1, 1, 1, 1),
    "model.decode_head.type": "UPerHead",
    "model.decode_head.pool_scales": (1, 2, 3, 6),
    "model.decode_head.num_convs": None,
    "model.decode_head.concat_input": None,
}
MOCO = {  # MoCo's appendix, D1; aligned corners and no dropout of SlotCon's port
    "model.backbone.strides": (1, 2, 2, 1),
    "model.backbone.dilations": (1, 1, 1, 2),
    "model.backbone.contract_dilation": False,
    "model.decode_head.type": "FCNHead",
    "model.decode_head.channels": 256,
    "model.decode_head.num_convs": 2,
    "model.decode_head.dilation": 6,
    "model.decode_head.concat_input": False,
    "model.decode_head.dropout_ratio": 0.0,
    "model.decode_head.align_corners": True,
    "model.auxiliary_head": None,
    "model.test_cfg.mode": "whole",
    "train_dataloader.batch_size": 16,
    "optim_wrapper.optimizer.weight_decay": 1e-4,
    "param_scheduler.0.type": "MultiStepLR",
    "param_scheduler.0.gamma": 0.1,
    "param_scheduler.1": None,  # no warm-up
    "train.2.type": "RandomResizeOfOwnSize",
    "train.2.ratio_range": (0.5, 2.0),
    "train.4.type": "RandomFlip",
    "train.5.type": "PackSegInputs",  # no distortion of colours
    "test.1.type": "LoadAnnotations",  # the image's own size
}
VOC_MOCO = MOCO | {
    "train_cfg.max_iters": 30_000,
    "optim_wrapper.optimizer.lr": 0.003,
    "param_scheduler.0.milestones": [21_000, 27_000],
    "train.3.crop_size": (513, 513),
    "model.decode_head.num_classes": 21,
}
CITYSCAPES_MOCO = MOCO | {
    "train_cfg.max_iters": 90_000,
    "optim_wrapper.optimizer.lr": 0.01,
    "param_scheduler.0.milestones": [63_000, 81_000],
    "train.3.crop_size": (769, 769),
    "model.decode_head.num_classes": 19,
}
LINEAR = {  # DINOv2's linear evaluation
    "train_cfg.max_iters": 40_000,
    "train_dataloader.batch_size": 16,
    "model.backbone.frozen_stages": 4,
    "model.backbone.norm_eval": True,
    "model.decode_head.type": "LinearHead",
    "model.decode_head.dropout_ratio": 0.0,
    "model.auxiliary_head": None,
    "optim_wrapper.optimizer.type": "AdamW",
    "optim_wrapper.optimizer.momentum": None,
    "optim_wrapper.optimizer.lr": 1e-3,
    "optim_wrapper.optimizer.weight_decay": 1e-4,
    "param_scheduler.0.end": 1500,
    "param_scheduler.1.power": 1.0,
    "model.test_cfg.crop_size": (512, 512),
    "model.test_cfg.stride": (341, 341),
}
SOURCES = {
    "voc_seg": VOC_D8,
    "voc_seg_moco": VOC_MOCO,
    "voc_seg_linear": LINEAR,
    "cityscapes_seg": CITYSCAPES_D8,
    "cityscapes_seg_moco": CITYSCAPES_MOCO,
    "ade20k_seg": ADE,
    "ade20k_upernet": UPERNET,
}


def value(config: Any, path: str) -> Any:
    """What is at a path of names and places; None where nothing is. Lists and tuples are the same to mmengine."""
    for part in path.split("."):
        if isinstance(config, Mapping):
            config = config.get(part)
        elif isinstance(config, list | tuple):
            config = config[int(part)] if int(part) < len(config) else None
        else:
            return None
    return list(config) if isinstance(config, tuple) else config


@pytest.mark.parametrize("name", SOURCES)
def test_every_value_is_its_sources(name: str) -> None:
    config = Config.fromfile(FOLDER / f"{name}.py", import_custom_modules=False).to_dict()
    training = config["train_dataloader"]["dataset"]
    pipelines = [part["pipeline"] for part in training.get("datasets", [training])]
    assert all(pipeline == pipelines[0] for pipeline in pipelines)
    config |= {"train": pipelines[0], "test": config["test_dataloader"]["dataset"]["pipeline"]}
    expected = TRAINED | SOURCES[name]
    found = {path: value(config, path) for path in expected}
    assert found == {path: list(v) if isinstance(v, tuple) else v for path, v in expected.items()}
    assert value(config, "train.3.crop_size") == value(config, "model.data_preprocessor.size")
