"""The values of segmentation protocols as they take effect, against their sources.

Those of mmsegmentation are compared value by value with the configuration files that its package ships.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmseg")

import mmseg
from mmengine.config import Config

from cgh_bench.foreign import frameworks

FOLDER = frameworks.find("mmseg").path
CONFIGS = Path(mmseg.__file__).parent / ".mim/configs"
SHIPPED = {
    "voc_seg": "fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py",
    "cityscapes_seg": "fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769.py",
    "ade20k_seg": "fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py",
    "ade20k_upernet": "upernet/upernet_r50_4xb4-160k_ade20k-512x512.py",
}
STEM = {  # ours and theirs: the plain stem that checkpoints have, whose weights the task brings
    "model.backbone.type": ("ResNet", "ResNetV1c"),
    "model.backbone.deep_stem": (False, None),
    "model.backbone.frozen_stages": (-1, None),  # its default
    "model.pretrained": (None, "open-mmlab://resnet50_v1c"),
}
LATE_PADDING = {  # after normalisation, by the data preprocessor: see voc_seg.py
    "train.6.type": ("PackSegInputs", "Pad"),
    "train.6.size": (None, [512, 512]),
    "train.7.type": (None, "PackSegInputs"),
}


def flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dictionaries and lists of them, by their paths."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from flat(value, f"{path}.{key}".strip("."))
    elif isinstance(node, list | tuple) and node and isinstance(node[0], Mapping):
        for place, value in enumerate(node):
            yield from flat(value, f"{path}.{place}")
    else:
        yield path, list(node) if isinstance(node, tuple) else node


def in_effect(path: Path) -> dict[str, Any]:
    """What defines a protocol, by its path; the batch is that of a whole step (`4xb4`: of four GPUs)."""
    config = Config.fromfile(path, import_custom_modules=False).to_dict()
    training = config["train_dataloader"]["dataset"]
    while "datasets" in training or "dataset" in training:
        training = training["datasets"][0] if "datasets" in training else training["dataset"]
    gpus = re.search(r"_(\d+)xb\d+", path.name)
    return dict(
        flat(
            {
                "model": config["model"],
                "train": training["pipeline"],
                "test": config["test_dataloader"]["dataset"]["pipeline"],
                "steps": config["train_cfg"]["max_iters"],
                "batch": config["train_dataloader"]["batch_size"] * (int(gpus[1]) if gpus else 1),
                **{name: config[name] for name in ("optim_wrapper", "param_scheduler")},
            }
        )
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_every_value_is_that_of_the_shipped_file(name: str) -> None:
    ours, theirs = in_effect(FOLDER / f"{name}.py"), in_effect(CONFIGS / SHIPPED[name])
    paths = sorted(ours.keys() | theirs.keys())
    differing = {path: (ours.get(path), theirs.get(path)) for path in paths if ours.get(path) != theirs.get(path)}
    assert differing == STEM | (LATE_PADDING if name == "voc_seg" else {})


def decay(rate: float, by_stage: bool, undecayed: str, layers: int | None = None) -> dict[str, tuple[Any, Any]]:
    """Ours, in the place of the shipped file's own constructor and its arguments."""
    ours = {"decay": rate, "by_stage": by_stage, "undecayed": undecayed} | ({"layers": layers} if layers else {})
    return {f"optim_wrapper.paramwise_cfg.{key}": (value, None) for key, value in ours.items()}


THEIRS = "optim_wrapper.paramwise_cfg"
FIXED = {"optim_wrapper.constructor": ("LayerDecay", None)}
CARRIED = {  # the shipped file, its rate of drop path, and what differs beside the backbone and its channels
    "ade20k_upernet_vit": (
        "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py",
        0.1,
        decay(0.65, False, "vectors")
        | {
            "optim_wrapper.constructor": ("LayerDecay", "LayerDecayOptimizerConstructor"),
            f"{THEIRS}.layer_decay_rate": (None, 0.65),
            f"{THEIRS}.num_layers": (None, 12),
            "optim_wrapper.type": ("AmpOptimWrapper", "OptimWrapper"),  # the file's name and its `fp16` say mixed
            "model.neck.embed_dim": (None, 768),  # for backbones with one scale
            "model.neck.rescales": (None, [4, 2, 1, 0.5]),
            "model.neck.type": (None, "Feature2Pyramid"),
            "model.data_preprocessor.test_cfg.size": ([512, 512], None),  # images smaller than a window
            "model.pretrained": (None, "./pretrain/mae_pretrain_vit_base_mmcls.pth"),
        },
    ),
    "ade20k_upernet_convnext": (
        "convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py",
        0.4,
        decay(0.9, True, "vectors", 6)
        | {
            "optim_wrapper.constructor": ("LayerDecay", "LearningRateDecayOptimizerConstructor"),
            f"{THEIRS}.decay_rate": (None, 0.9),
            f"{THEIRS}.decay_type": (None, "stage_wise"),
            f"{THEIRS}.num_layers": (None, 6),
            "optim_wrapper.loss_scale": (None, "dynamic"),  # its default
            "model.data_preprocessor.test_cfg.size": ([512, 512], None),
        },
    ),
    "ade20k_upernet_swin": (
        "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
        0.3,
        decay(1.0, True, "norms")
        | FIXED
        | {
            f"{THEIRS}.custom_keys.{part}.decay_mult": (None, 0.0)
            for part in ("absolute_pos_embed", "norm", "relative_position_bias_table")
        }
        | {"model.data_preprocessor.test_cfg.size_divisor": (32, None)},
    ),
}


@pytest.mark.parametrize("name", CARRIED)
def test_all_but_the_backbone_is_that_of_the_shipped_file(name: str) -> None:
    file, dropped, known = CARRIED[name]
    ours, theirs = in_effect(FOLDER / f"{name}.py"), in_effect(CONFIGS / file)
    differing = {
        path: (ours.get(path), theirs.get(path))
        for path in ours.keys() | theirs.keys()
        if ours.get(path) != theirs.get(path)
        if not path.startswith("model.backbone.") and not path.endswith(".in_channels")
    }
    assert differing == known
    assert ours["model.backbone.drop_path"] == theirs["model.backbone.drop_path_rate"] == dropped


def test_voc_is_trained_on_its_own_maps_and_on_sbds() -> None:
    config = Config.fromfile(FOLDER / "voc_seg.py", import_custom_modules=False)
    parts = [(part.ann_file, part.data_prefix.seg_map_path) for part in config.train_dataloader.dataset.datasets]
    folder = "ImageSets/Segmentation"
    assert parts == [(f"{folder}/train.txt", "SegmentationClass"), (f"{folder}/aug.txt", "SegmentationClassAug")]
    assert config.test_dataloader.dataset.ann_file == f"{folder}/val.txt"


TRAINED = {  # of those with sources that are no files of mmsegmentation
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
LINEAR_CARRIED = {  # DINOv3's, which starts from the same public recipe
    "train_cfg.max_iters": 40_000,
    "train_dataloader.batch_size": 16,
    "model.backbone.frozen": True,
    "model.backbone.depth": None,
    "model.backbone.frozen_stages": None,
    "model.backbone.norm_eval": None,
    "model.backbone.norm_cfg.type": None,
    "model.decode_head.type": "LinearHead",
    "model.decode_head.dropout_ratio": 0.1,
    "model.decode_head.num_classes": 150,
    "model.auxiliary_head": None,
    "optim_wrapper.optimizer.type": "AdamW",
    "optim_wrapper.optimizer.momentum": None,
    "optim_wrapper.optimizer.lr": 1e-3,
    "optim_wrapper.optimizer.betas": (0.9, 0.999),
    "optim_wrapper.optimizer.weight_decay": 1e-3,
    "param_scheduler.0.end": 1500,
    "param_scheduler.0.start_factor": 1e-6,
    "train.2.ratio_range": (0.5, 2.0),
    "train.3.crop_size": (512, 512),
    "train.3.cat_max_ratio": 0.75,
    "model.test_cfg.crop_size": (512, 512),
    "model.test_cfg.stride": (341, 341),
}
SOURCES = {
    "ade20k_linear": LINEAR_CARRIED,  # facebookresearch/dinov3 (commit 6876159) config-ade20k-linear-training.yaml
    "voc_seg_moco": VOC_MOCO,  # CVMI-Lab/SlotCon (commit d510e65) transfer/segmentation/configs/voc12aug, and the paper
    "voc_seg_linear": LINEAR,  # facebookresearch/dinov2, dinov2_vitb14_voc2012_linear_config.py
    "cityscapes_seg_moco": CITYSCAPES_MOCO,  # …/configs/_base_/schedules/schedule_90k_moco.py
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
