"""Which codebase wrote a checkpoint: one rule per origin, tried on the networks that a file holds (`recognition`).

To add an origin, add a `Reader` to `READERS`: where its network lies, and what tells it from the others. Importing the
rules loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from cgh_bench.data.preprocessing import Preprocessing

if TYPE_CHECKING:
    from cgh_bench.backbones.base import Architecture

SPECIFIC, LAYOUT = range(2)


Implied = Callable[["Architecture"], Mapping[str, Any]]


def _always(**properties: Any) -> Implied:
    return lambda architecture: properties


_AS_USUAL = _always()


def _moco_v3(architecture: Architecture) -> Mapping[str, Any]:
    """Twelve heads, of the small network too (facebookresearch/moco-v3 vits.py)."""
    return {"heads": 12} if architecture.width(architecture.global_targets) in (384, 768) else {}


def _simclr(architecture: Architecture) -> Mapping[str, Any]:
    """Its network for CIFAR strides in the 1x1 (Spijkervet/SimCLR simclr/modules/resnet_hacks.py)."""
    return {"stride_in_1x1": True} if _has_no_pool(architecture) else {}


def _solo_learn(architecture: Architecture) -> Mapping[str, Any]:
    """Its 3x3 stem without a pool, for CIFAR, pads by 2 (solo/methods/base.py)."""
    return {"stem.padding": 2} if _has_no_pool(architecture) else {}


def _has_no_pool(architecture: Architecture) -> bool:
    return "stem.pool" in architecture.untold and not architecture.value("stem.pool")


_VITS = ("vit", "vit_dinov2")


@dataclass(frozen=True)
class Reader:
    """How the files of one origin are told from the others."""

    title: str
    branches: Mapping[str, str]
    """Branch to the place of its network in the file (a regular expression; wrappers such as `module.` are left out of
    places). The first branch is the default."""
    url: str
    """The public source of the layout."""
    marks: tuple[str, ...] = ()
    """Regular expressions; each must be found among the file's names (at a line's start: `^`)."""
    lacks: tuple[str, ...] = ()
    """Regular expressions; none may be found."""
    namings: tuple[str, ...] = ("torchvision", *_VITS, "timm_model")
    preprocessing: Preprocessing | None = field(default_factory=Preprocessing)
    """What the origin's own code does to pixels; None where that is left to its users."""
    implies: Implied | None = _AS_USUAL
    """What the origin's own code builds: the properties of `Architecture.UNTOLD` that are not as usual (those that the
    network does not have do not count); None where that is left to its users."""
    proof: str = ""
    """What the tests prove this rule against: the origin's own code, with its version."""
    rank: int = SPECIFIC
    """Rules of a rank are tried only if none of a lower rank fits."""

    @property
    def description(self) -> str:
        """One line for `cgh-bench list sources`."""
        branches = f" (branches: {', '.join(self.branches)})" if len(self.branches) > 1 else ""
        return f"{self.title}{branches}"


_IN = r"(state_dict/|model/|model_state_dict/|)"  # where most trainers keep the model
_MM = ("torchvision", "openmmlab_deep", "vit_openmmlab")
_HUGGINGFACE_VITS = ("vit_huggingface", "vit_huggingface_5", "dinov2_huggingface", "dinov2_huggingface_5")
_INDEXED = ("sequential", "sequential_no_pool")
PLAIN = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Pixels from 0 to 1 and no normalisation."""

_left_to_users = partial(Reader, preprocessing=None, implies=None)
"""What such code does to pixels, and what it builds, is its users' choice."""
_openmmlab = partial(Reader, namings=_MM, implies=None)

READERS: dict[str, Reader] = {
    "ours": _left_to_users(
        "cgh-bench's own .safetensors",
        {"model": ""},
        "cgh_bench/checkpoint.py",
        marks=("^checkpoint$", "^format$"),
    ),
    "cgh": Reader(
        "CGH, the released code",
        {"student": "net/encoder_q", "teacher": "net/encoder_k"},
        "https://github.com/zaczgao/Cross-Context_Learning (d064b00) detection/convert-pretrain-to-detectron2.py",
        proof="numbers of zaczgao/Cross-Context_Learning (340bca9)",
    ),
    "moco_v1": Reader(
        "MoCo v1",
        {"student": rf"{_IN}encoder_q", "teacher": rf"{_IN}encoder_k"},
        "https://github.com/facebookresearch/moco (132aea9) moco/builder.py",
        marks=(r"encoder_q\.fc\.weight$", r"queue$"),
        lacks=("^net/",),
        proof="numbers of facebookresearch/moco (4397a04)",
    ),
    "moco_v2": Reader(
        "MoCo v2",
        {"student": rf"{_IN}encoder_q", "teacher": rf"{_IN}encoder_k"},
        "https://github.com/facebookresearch/moco (132aea9) moco/builder.py",
        marks=(r"encoder_q\.fc\.0\.weight$", r"queue$"),
        lacks=("^net/",),
        proof="numbers of facebookresearch/moco (4397a04)",
    ),
    "moco_v3": Reader(
        "MoCo v3",
        {"base": rf"{_IN}base_encoder", "momentum": rf"{_IN}momentum_encoder"},
        "https://github.com/facebookresearch/moco-v3 moco/builder.py",
        marks=(r"base_encoder",),
        implies=_moco_v3,
        proof="numbers of facebookresearch/moco-v3 (c349e6e)",
    ),
    "simclr": Reader(
        "SimCLR in PyTorch (sthalles/SimCLR, Spijkervet/SimCLR)",
        {"model": rf"{_IN}(backbone|encoder)"},
        "https://github.com/sthalles/SimCLR (118985c); https://github.com/Spijkervet/SimCLR (847eac3) simclr/simclr.py",
        marks=(r"backbone\.fc\.2\.weight$|^projector\.2\.weight$",),
        lacks=(r"predictor", r"_momentum", "^pytorch-lightning"),
        preprocessing=PLAIN,
        implies=_simclr,
        proof="numbers of sthalles/SimCLR (1848fc9) and Spijkervet/SimCLR (2738efa)",
    ),
    "simsiam": Reader(
        "SimSiam",
        {"model": rf"{_IN}encoder"},
        "https://github.com/facebookresearch/simsiam simsiam/builder.py",
        marks=(r"predictor\.0\.weight$", r"encoder\.fc\.0\.weight$"),
        proof="numbers of facebookresearch/simsiam (a7bc177)",
    ),
    "byol": Reader(
        "BYOL in PyTorch (lucidrains/byol-pytorch)",
        {"online": rf"{_IN}online_encoder\.net", "target": rf"{_IN}target_encoder\.net"},
        "https://github.com/lucidrains/byol-pytorch byol_pytorch/byol_pytorch.py",
        proof="numbers of byol-pytorch 0.9.1",
    ),
    "byol_sthalles": Reader(
        "BYOL in PyTorch (sthalles/PyTorch-BYOL)",
        {"online": "online_network_state_dict/encoder", "target": "target_network_state_dict/encoder"},
        "https://github.com/sthalles/PyTorch-BYOL trainer.py, models/resnet_base_network.py",
        namings=_INDEXED,
        preprocessing=PLAIN,
        proof="numbers of sthalles/PyTorch-BYOL (f007ed6)",
    ),
    "swav": Reader(
        "SwAV and DeepCluster-v2",
        {"model": "(state_dict/|)"},
        "https://github.com/facebookresearch/swav (04b8f43) src/resnet50.py; std 0.228: src/multicropdataset.py",
        marks=(r"projection_head\.", r"prototypes\."),
        preprocessing=Preprocessing(std=(0.228, 0.224, 0.225)),
        proof="numbers of facebookresearch/swav (06b1b7c)",
    ),
    "barlow_twins": Reader(
        "Barlow Twins",
        {"model": "model/backbone"},
        "https://github.com/facebookresearch/barlowtwins main.py",
        marks=(r"^model/projector\.0\.weight$", r"^model/bn\.running_mean$"),
        proof="numbers of facebookresearch/barlowtwins (8e8d284)",
    ),
    "vicreg": Reader(
        "VICReg",
        {"model": "model/backbone"},
        "https://github.com/facebookresearch/vicreg main_vicreg.py",
        marks=(r"^model/projector\.0\.bias$",),
        lacks=(r"^model/bn\.",),
        proof="numbers of facebookresearch/vicreg (4e12602)",
    ),
    "dino": Reader(
        "DINO",
        {"teacher": "teacher/backbone", "student": "student/backbone"},
        "https://github.com/facebookresearch/dino main_dino.py, utils.py",
        implies=_always(positions="dino"),
        proof="numbers of facebookresearch/dino (7c446df), facebookresearch/dinov2 (b8931f7) and bytedance/ibot "
        "(da316d8)",
    ),
    "mae": Reader(
        "MAE: the encoder of a pretraining checkpoint",
        {"model": "(model/|)"},
        "https://github.com/facebookresearch/mae models_mae.py, util/misc.py",
        marks=(r"(^|/)decoder_blocks\.0\.",),
        namings=("vit",),
        proof="numbers of facebookresearch/mae (efb2a80)",
    ),
    "ijepa": Reader(
        "I-JEPA",
        {"target": "target_encoder/", "context": "encoder/"},
        "https://github.com/facebookresearch/ijepa src/train.py, src/models/vision_transformer.py",
        marks=(r"^predictor/",),
        namings=("vit", "timm_model"),
        proof="numbers of facebookresearch/ijepa (52c1ae9)",
    ),
    "msn": Reader(
        "MSN",
        {"target": "target_encoder/", "context": "encoder/"},
        "https://github.com/facebookresearch/msn (db0d572) src/msn_train.py, src/deit.py",
        marks=("^prototypes$",),
        lacks=("^predictor/",),
        namings=("vit",),
        implies=_always(positions="transformers"),
        proof="numbers of facebookresearch/msn (4388dc1)",
    ),
    "supcontrast": Reader(
        "SupContrast",
        {"model": rf"{_IN}encoder"},
        "https://github.com/HobbitLong/SupContrast networks/resnet_big.py, main_supcon.py",
        namings=("shortcut",),
        preprocessing=None,
        proof="numbers of HobbitLong/SupContrast (66a8fe5)",
    ),
    "ressl": Reader(
        "ReSSL",
        {"student": r"model/encoder_q\.net", "teacher": r"model/encoder_k\.net"},
        "https://github.com/mingkai-zheng/ReSSL (277ab05) ressl.py, network/backbone.py",
        proof="numbers of mingkai-zheng/ReSSL (4d67daa)",
    ),
    "pixpro": Reader(
        "PixPro",
        {"online": "(model/|)encoder", "momentum": "(model/|)encoder_k"},
        "https://github.com/zdaxie/PixPro (6689c38) contrast/models/PixPro.py",
        marks=(r"projector\.linear1\.weight$",),
        proof="numbers of zdaxie/PixPro (e390d6b)",
    ),
    "densecl": _openmmlab(
        "DenseCL, the released code",
        {"student": "state_dict/backbone", "teacher": r"state_dict/encoder_k\.0"},
        "https://github.com/WXinlong/DenseCL openselfsup/models/densecl.py",
        marks=(r"queue2$", r"^state_dict/encoder_q\.0\."),
        proof="numbers of WXinlong/DenseCL (b64bbb6)",
    ),
    "openselfsup": _openmmlab(
        "OpenSelfSup",
        {"student": "state_dict/backbone", "teacher": r"state_dict/(encoder_k|target_net)\.0"},
        "https://github.com/open-mmlab/OpenSelfSup openselfsup/models/moco.py, byol.py",
        marks=(r"^state_dict/(encoder_q|online_net)\.0\.",),
        lacks=(r"queue2$",),
    ),
    "mmselfsup": _openmmlab(
        "mmselfsup, and the self-supervised models of mmpretrain",
        {"student": "state_dict/backbone", "teacher": r"state_dict/(encoder_k|target_net|momentum_encoder)\.0"},
        "https://github.com/open-mmlab/mmpretrain (v1.2.0) mmpretrain/models/selfsup",
        marks=(r"^state_dict/neck\.", r"^meta/"),
        lacks=(r"^state_dict/(encoder_q|online_net)\.", r"lateral_convs", r"_head\.", r"^state_dict/head\.fc\."),
    ),
    "mmpretrain": _openmmlab(
        "mmpretrain (mmcls): a classifier",
        {"model": "state_dict/backbone", "unaveraged": "ema_state_dict/backbone"},
        "https://github.com/open-mmlab/mmpretrain (v1.2.0) mmpretrain/models/classifiers/image.py",
        marks=(r"^state_dict/head\.(fc|layers)\.",),
        lacks=("^pytorch-lightning",),
    ),
    "mmdet": _openmmlab(
        "mmdetection: the backbone of a detector",
        {"model": "state_dict/backbone", "unaveraged": "ema_state_dict/backbone"},
        "https://github.com/open-mmlab/mmdetection (v3.3.0) mmdet/models/detectors",
        marks=(r"^state_dict/(rpn_head|roi_head|bbox_head|mask_head|query_head|panoptic_head|encoder\.layers)\.",),
    ),
    "mmseg": _openmmlab(
        "mmsegmentation: the backbone of a segmentor",
        {"model": "state_dict/backbone", "unaveraged": "ema_state_dict/backbone"},
        "https://github.com/open-mmlab/mmsegmentation (v1.2.2) mmseg/models/segmentors",
        marks=(r"^state_dict/decode_head\.",),
        proof="mmsegmentation (onedl-mmsegmentation 1.4.2), in the tests",
    ),
    "vissl": Reader(
        "VISSL",
        {
            "model": r"(classy_state_dict/base_model/model/trunk/|model_state_dict/|)(trunk\.)?(base_model\.)?"
            "_feature_blocks"
        },
        "https://github.com/facebookresearch/vissl (v0.1.6) extra_scripts/convert_vissl_to_torchvision.py",
    ),
    "solo_learn": Reader(
        "solo-learn",
        {"online": "state_dict/(backbone|encoder)", "momentum": "state_dict/momentum_(backbone|encoder)"},
        "https://github.com/vturrisi/solo-learn solo/methods/base.py",
        marks=(r"^pytorch-lightning_version$", r"^state_dict/classifier\."),
        preprocessing=None,
        implies=_solo_learn,
    ),
    "lightly": Reader(
        "lightly: a ResNet as nn.Sequential, or its vision transformers",
        {
            "online": rf"{_IN}(student_|)backbone(\.vit)?",
            "momentum": rf"{_IN}(teacher_backbone|backbone_momentum|momentum_backbone)(\.vit)?",
        },
        "https://github.com/lightly-ai/lightly examples/pytorch/moco.py, lightly/models",
        lacks=(r"^state_dict/classifier\.", "^lightly_train/"),
        namings=(*_INDEXED, *_VITS),
        preprocessing=None,
        proof="lightly 1.6, in the tests",
    ),
    "lightly_train": _left_to_users(
        "lightly-train",
        {
            "model": "lightly_train/models/model/",
            "student": r"state_dict/student_embedding_model\.wrapped_model\._(features|model)",
            "teacher": r"state_dict/teacher_embedding_model\.wrapped_model\._(features|model)",
        },
        "https://github.com/lightly-ai/lightly-train (0.18.0) src/lightly_train/_checkpoint.py",
        marks=("^lightly_train/version$",),
    ),
    "detectron2": _left_to_users(
        "detectron2, .pth and .pkl: a detector's backbone, or a network converted for it",
        {"model": r"(model/|)(backbone(\.bottom_up)?|)"},
        "https://github.com/facebookresearch/detectron2 (v0.6) detectron2/modeling/backbone/resnet.py",
        namings=("detectron2",),
    ),
    "msra": Reader(
        "Caffe2 networks of Detectron, .pkl (MSRA R-50, R-101; X-101)",
        {"model": "(blobs/|model/|)"},
        "https://github.com/facebookresearch/detectron2 (v0.6) detectron2/checkpoint/c2_model_loading.py",
        namings=("caffe2",),
        preprocessing=None,
    ),
    "huggingface": _left_to_users(
        "Hugging Face transformers: ResNet, ViT or DINOv2 as file or folder; other image networks as folder",
        {"model": ".*"},
        "https://github.com/huggingface/transformers (v5.0.0) src/transformers/models, conversion_mapping.py",
        namings=("huggingface", *_HUGGINGFACE_VITS, "transformers_model"),
        proof="transformers 5, in the tests",
    ),
    "timm": _left_to_users(
        "timm (training checkpoint, Hub folder, deep stem, or bare ViT; DINO, DINOv2, MAE, DeiT use that layout)",
        {"ema": "state_dict_ema/", "model": "(state_dict/|model/|)"},
        "https://github.com/huggingface/pytorch-image-models timm/utils/checkpoint_saver.py, timm/models/",
        marks=(r"^version$|^config/pretrained_cfg/|(^|/)conv1\.0\.weight$|(^|/)blocks\.0\.norm1\.weight$",),
        lacks=("^pytorch-lightning", r"(^|/)decoder_", "^checkpoint$"),
        proof="timm 1.0, in the tests",
    ),
    "torchvision_segmentation": Reader(
        "torchvision: the backbone of FCN or DeepLabV3",
        {"model": "(model/|)backbone"},
        "https://github.com/pytorch/vision torchvision/models/segmentation/fcn.py, deeplabv3.py",
        marks=(r"(^|/)classifier\.4\.weight$",),
        lacks=("^pytorch-lightning",),
        implies=_always(dilation=(1, 1, 2, 4)),
        proof="torchvision 0.29, in the tests",
    ),
    "ema": _left_to_users(
        "averaged weights (ema-pytorch and similar)",
        {"ema": rf"{_IN}ema(_model)?", "online": rf"{_IN}(online_model|model)"},
        "https://github.com/lucidrains/ema-pytorch ema_pytorch/ema_pytorch.py",
        marks=(r"(^|/)ema(_model)?\.",),
        rank=LAYOUT,
    ),
    "torchvision": _left_to_users(
        "torchvision, or a bare ResNet with its names (Barlow Twins, VICReg, DINO, SimCLR and timm publish such files)",
        {"model": "(state_dict/|model/|)", "ema": "model_ema/"},
        "https://github.com/pytorch/vision references/classification/train.py",
        namings=_MM,
        rank=LAYOUT,
        proof="torchvision 0.29, in the tests",
    ),
    "lightning": _left_to_users(
        "another Lightning checkpoint with a single network",
        {"model": "state_dict/.+"},
        "https://github.com/Lightning-AI/pytorch-lightning",
        marks=("^pytorch-lightning_version$",),
        namings=(*_MM, *_INDEXED),
        rank=LAYOUT,
    ),
}
