"""The carried backbone in OpenMMLab's protocols: every value is its source's; learning rates by layer."""

import argparse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from cgh_bench.foreign import frameworks
from cgh_bench.transfer_configs.openmmlab import train  # first: it provides mmcv's operators

from mmengine.config import Config  # isort: skip
from mmengine.optim import build_optim_wrapper  # isort: skip
from mmengine.registry import MODELS, DefaultScope  # isort: skip

FOLDER = frameworks.find("mmdet").path


def protocol(name: str, weights: Path | None = None) -> Config:
    options = {
        "settings": {},
        "data": None,
        "iterations": None,
        "gpus": 0,
        "images_at_a_time": None,
        "work": Path(),
        "seed": 0,
    }
    return train.protocol(argparse.Namespace(config=FOLDER / f"{name}.py", weights=weights, **options))


def built(config: Config) -> Any:
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
        model.init_weights()
    return model


VITDET = {  # facebookresearch/detectron2@02b5c4e, the files that coco_vitdet.py names
    "model.backbone.drop_path": 0.1,
    "model.data_preprocessor.pad_size_divisor": 1024,
    "model.neck.type": "SimpleFeaturePyramid",
    "model.neck.out_channels": 256,
    "model.neck.num_outs": 5,
    "model.rpn_head.num_convs": 2,
    "model.roi_head.bbox_head.num_shared_convs": 4,
    "model.roi_head.bbox_head.num_shared_fcs": 1,
    "model.roi_head.bbox_head.fc_out_channels": 1024,
    "model.roi_head.bbox_head.norm_cfg.type": "ChannelNorm",
    "model.roi_head.mask_head.norm_cfg.type": "ChannelNorm",
    "model.train_cfg.rcnn.sampler.num": 512,
    "train_cfg.max_iters": 184_375,
    "train_dataloader.batch_size": 64,
    "train_dataloader.dataset.pipeline.3.ratio_range": (0.1, 2.0),
    "train_dataloader.dataset.pipeline.4.crop_size": (1024, 1024),
    "test_dataloader.dataset.pipeline.1.scale": (1024, 1024),
    "optim_wrapper.optimizer.type": "AdamW",
    "optim_wrapper.optimizer.lr": 1e-4,
    "optim_wrapper.optimizer.weight_decay": 0.1,
    "optim_wrapper.paramwise_cfg.decay": 0.7,
    "param_scheduler.0.end": 250,
    "param_scheduler.0.start_factor": 0.001,
    "param_scheduler.1.milestones": [163_889, 177_546],
}
UPERNET = {  # mmsegmentation's configs/_base_/models/upernet_*.py and datasets/ade20k.py
    "model.decode_head.type": "UPerHead",
    "model.decode_head.pool_scales": (1, 2, 3, 6),
    "model.decode_head.num_classes": 150,
    "model.auxiliary_head.in_index": 2,
    "model.auxiliary_head.channels": 256,
    "model.auxiliary_head.loss_decode.loss_weight": 0.4,
    "train_cfg.max_iters": 160_000,
    "train_dataloader.batch_size": 16,
    "train_dataloader.dataset.pipeline.3.crop_size": (512, 512),
    "optim_wrapper.optimizer.type": "AdamW",
    "param_scheduler.0.end": 1500,
    "param_scheduler.1.power": 1.0,
}
SOURCES = {
    "coco_vitdet": VITDET,
    "coco_fpn_swin": {  # mmdetection's configs/swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py
        "model.backbone.drop_path": 0.2,
        "model.neck.in_channels": [96, 192, 384, 768],
        "model.neck.norm_cfg": None,
        "train_cfg.max_iters": 12 * 7330,
        "train_dataloader.batch_size": 16,
        "train_dataloader.dataset.pipeline.2.scale": (1333, 800),
        "optim_wrapper.optimizer.type": "AdamW",
        "optim_wrapper.optimizer.lr": 1e-4,
        "optim_wrapper.optimizer.weight_decay": 0.05,
        "param_scheduler.0.end": 1000,
        "param_scheduler.1.milestones": [8 * 7330, 11 * 7330],
    },
    "ade20k_upernet_vit": UPERNET  # mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py
    | {
        "model.backbone.drop_path": 0.1,
        "model.neck.embed_dim": 768,
        "model.neck.rescales": [4, 2, 1, 0.5],
        "model.decode_head.channels": 768,
        "model.decode_head.in_channels": [768] * 4,
        "model.test_cfg.stride": (256, 256),
        "optim_wrapper.optimizer.lr": 1e-4,
        "optim_wrapper.optimizer.weight_decay": 0.05,
        "optim_wrapper.paramwise_cfg.decay": 0.65,
    },
    "ade20k_upernet_convnext": UPERNET  # convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py
    | {
        "model.backbone.drop_path": 0.4,
        "model.decode_head.channels": 512,
        "model.decode_head.in_channels": [96, 192, 384, 768],
        "model.auxiliary_head.in_channels": 384,
        "model.test_cfg.stride": (341, 341),
        "optim_wrapper.optimizer.lr": 1e-4,
        "optim_wrapper.optimizer.weight_decay": 0.05,
        "optim_wrapper.paramwise_cfg": {"decay": 0.9, "by_stage": True, "layers": 6, "undecayed": "vectors"},
    },
    "ade20k_upernet_swin": UPERNET  # swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py
    | {
        "model.backbone.drop_path": 0.3,
        "model.decode_head.channels": 512,
        "model.decode_head.in_channels": [96, 192, 384, 768],
        "model.test_cfg.mode": "whole",
        "optim_wrapper.optimizer.lr": 6e-5,
        "optim_wrapper.optimizer.weight_decay": 0.01,
        "optim_wrapper.paramwise_cfg.decay": 1.0,
    },
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_value_is_its_sources(name):
    config = protocol(name).to_dict()
    found = {path: _value(config, path) for path in SOURCES[name]}
    assert found == {path: list(v) if isinstance(v, tuple) else v for path, v in SOURCES[name].items()}


def _value(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = config[int(part)] if isinstance(config, list | tuple) else config[part]
    return list(config) if isinstance(config, tuple) else config


def test_learning_rates_fall_towards_the_image_and_norms_do_not_decay():
    """By the formula of detectron2's `get_vit_lr_decay_rate` for a network of three blocks."""
    config = protocol("coco_vitdet")
    config.model.backbone.architecture = "vit_tiny_patch16_32"
    config.optim_wrapper.type = "OptimWrapper"
    config.model.neck.in_channels = 192
    model = built(config)
    with DefaultScope.overwrite_default_scope("mmdet"):
        groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    of = {parameter: group for group in groups for parameter in group["params"]}
    backbone = model.backbone.network.network
    for parameter, exponent, decay in (
        (backbone.pos_embed, 13, 0.0),
        (backbone.patch_embed.proj.weight, 13, 0.1),
        (backbone.blocks[0].attn.qkv.weight, 12, 0.1),
        (backbone.blocks[11].attn.qkv.bias, 1, 0.1),
        (backbone.blocks[11].norm1.weight, 1, 0.0),
        (model.rpn_head.rpn_cls.weight, 0, 0.1),
    ):
        assert of[parameter]["lr"] == pytest.approx(1e-4 * 0.7**exponent)
        assert of[parameter]["weight_decay"] == decay
    assert len(of) == sum(1 for _ in model.parameters())
