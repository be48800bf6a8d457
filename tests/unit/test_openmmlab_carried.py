"""The carried backbone in OpenMMLab's protocols: every value is its source's; learning rates by layer."""

import argparse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from cgh_bench.foreign import frameworks
from cgh_bench.transfer_configs.openmmlab import train  # first: it provides mmcv's operators

import mmdet  # isort: skip
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
CASCADE = {  # bytedance/ibot@da316d8, the files that coco_cascade.py names
    "model.type": "CascadeRCNN",
    "model.backbone.drop_path": 0.2,
    "model.neck.0.type": "mmseg.Feature2Pyramid",
    "model.neck.0.rescales": [4, 2, 1, 0.5],
    "model.neck.1.in_channels": [768] * 4,
    "model.neck.1.norm_cfg": None,
    "model.rpn_head.loss_bbox.beta": 1 / 9,
    "model.roi_head.stage_loss_weights": [1, 0.5, 0.25],
    "model.roi_head.bbox_head.0.num_shared_convs": 4,
    "model.roi_head.bbox_head.2.bbox_coder.target_stds": [0.033, 0.033, 0.067, 0.067],
    "model.roi_head.bbox_head.1.norm_cfg.type": "SyncBN",
    "model.roi_head.bbox_head.1.reg_class_agnostic": False,
    "model.roi_head.bbox_head.1.reg_decoded_bbox": True,
    "model.roi_head.bbox_head.1.loss_bbox": {"type": "GIoULoss", "loss_weight": 10.0},
    "model.train_cfg.rpn.assigner.min_pos_iou": 0.3,
    "model.train_cfg.rpn.allowed_border": 0,
    "model.train_cfg.rpn_proposal.max_per_img": 2000,
    "model.train_cfg.rcnn.1.assigner.pos_iou_thr": 0.6,
    "model.train_cfg.rcnn.2.assigner.min_pos_iou": 0.7,
    "train_cfg.max_iters": 12 * 7330,
    "train_dataloader.batch_size": 16,
    "optim_wrapper.type": "AmpOptimWrapper",
    "optim_wrapper.optimizer.lr": 1e-4,
    "optim_wrapper.optimizer.weight_decay": 0.05,
    "optim_wrapper.paramwise_cfg.decay": 0.75,
    "param_scheduler.0.end": 500,
    "param_scheduler.1.milestones": [8 * 7330, 11 * 7330],
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
    "coco_cascade": CASCADE,
    "coco_dino": {  # the training of mmdetection's configs/dino/dino-4scale_r50_8xb2-12e_coco.py; its model is below
        "train_cfg.max_iters": 12 * 7393,
        "train_dataloader.batch_size": 16,
        "train_dataloader.dataset.filter_cfg.filter_empty_gt": False,
        "optim_wrapper.optimizer": {"type": "AdamW", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 1e-4},
        "optim_wrapper.clip_grad": {"max_norm": 0.1, "norm_type": 2},
        "optim_wrapper.paramwise_cfg": {"custom_keys": {"backbone": {"lr_mult": 0.1}}},
        "param_scheduler.0.milestones": [11 * 7393],
    },
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_value_is_its_sources(name):
    config = protocol(name).to_dict()
    found = {path: _value(config, path) for path in SOURCES[name]}
    assert found == {path: list(v) if isinstance(v, tuple) else v for path, v in SOURCES[name].items()}


def test_the_end_to_end_detector_is_that_of_the_shipped_file():
    shipped = Path(mmdet.__file__).parent / ".mim/configs/dino/dino-5scale_swin-l_8xb2-12e_coco.py"
    ours, theirs = (Config.fromfile(path).model.to_dict() for path in (FOLDER / "coco_dino.py", shipped))
    assert ours.pop("backbone")["drop_path"] == theirs.pop("backbone")["drop_path_rate"] == 0.2
    sizes = (
        [model["neck"].pop("in_channels") for model in (ours, theirs)],
        [model["data_preprocessor"].pop("pad_size_divisor") for model in (ours, theirs)],
    )
    assert sizes == ([[96, 192, 384, 768], [192, 384, 768, 1536]], [32, 1])
    assert ours == theirs


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
