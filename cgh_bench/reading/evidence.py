"""What a file says beside its tensors: of the images that the weights expect, and of what shapes do not show."""

import ast
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cgh_bench.backbones.timm import Timm
from cgh_bench.backbones.vit import ViT
from cgh_bench.checkpoint import ChannelOrder, Preprocessing
from cgh_bench.core.errors import UserError
from cgh_bench.reading.candidate import Candidate
from cgh_bench.reading.weights_file import WeightsFile

MSRA = Preprocessing("BGR", 255.0, (103.530, 116.280, 123.675), (1.0, 1.0, 1.0))
"""Detectron's and detectron2's default, for the caffe networks of MSRA: PIXEL_MEAN, PIXEL_STD, INPUT.FORMAT of
facebookresearch/detectron2@v0.6 detectron2/config/defaults.py."""
X101 = Preprocessing("BGR", 255.0, (103.530, 116.280, 123.675), (57.375, 57.120, 58.395))
"""The preprocessing of X-101-32x8d.pkl; source: facebookresearch/detectron2@v0.6
configs/COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml."""
INCEPTION = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

Sureness = Literal["stated", "implied", "assumed"]
"""In the file; by what made the file; nowhere (the usual values of its origin)."""


def preprocessing_of(
    file: WeightsFile, network: Candidate, implied: Preprocessing | None
) -> tuple[Preprocessing, bool, Sureness]:
    """Preprocessing, whether the stride is in the first 1x1 of a bottleneck, and how sure both are.

    `implied` is what the origin's own code does, where that is known.
    """
    if network.naming == "caffe2":
        is_resnext = network.architecture is not None and network.architecture.name.startswith("resnext")
        return (X101 if is_resnext else MSRA), not is_resnext, "implied"
    if network.naming == "detectron2":
        return _detectron2(file)
    if found := _openmmlab(file.facts):
        return found
    if found := _huggingface(file.facts):
        return found
    if implied is None and isinstance(network.architecture, Timm):
        implied = usual_preprocessing(network.architecture)
    return (implied, False, "implied") if implied else (Preprocessing(), False, "assumed")


def usual_preprocessing(architecture: Timm) -> Preprocessing:
    """What timm does to the images of that architecture's first weights."""
    from timm.models import PretrainedCfg, get_pretrained_cfg

    usual = get_pretrained_cfg(architecture.name) or PretrainedCfg()
    return Preprocessing(mean=_triple(usual.mean), std=_triple(usual.std))


def attention_of(file: WeightsFile, vit: ViT, naming: str, source: str) -> ViT:
    """`vit` with the number of heads and the norms' epsilon that the file's configuration or its origin says.

    MoCo v3's small network has twelve heads of 32 (facebookresearch/moco-v3 vits.py), mmpretrain's `mocov3-s` too.
    transformers' configuration says all; where it is absent its default holds, 1e-12 in `ViTConfig`.

    Raises:
        UserError: the configuration asks for another activation than GELU.
    """
    facts = file.facts
    if facts.get("config/hidden_act", "gelu") != "gelu":
        raise UserError(f"{file.path}: its activation is {facts['config/hidden_act']}; accepted: gelu")
    is_moco = source == "moco_v3" or bool(re.search(r"['\"]mocov3-s", str(facts.get("meta/cfg"))))
    if is_moco and vit.name.startswith("vit_small"):
        vit = dataclasses.replace(vit, head_width=32)
    if naming.startswith("vit_huggingface"):
        vit = dataclasses.replace(vit, norm_eps=1e-12)
    if isinstance(heads := facts.get("config/num_attention_heads"), int) and heads > 0:
        vit = dataclasses.replace(vit, head_width=vit.dim // heads)
    if isinstance(eps := facts.get("config/layer_norm_eps"), float):
        vit = dataclasses.replace(vit, norm_eps=eps)
    return vit


def _detectron2(file: WeightsFile) -> tuple[Preprocessing, bool, Sureness]:
    """A file for `matching_heuristics` was converted, from PyTorch unless it says Caffe2; others were trained there."""
    converted = file.facts.get("matching_heuristics") is True and file.facts.get("__author__") != "Caffe2"
    pixel = {
        kind: tuple(float(v) for v in tensor.flatten())
        for name, tensor in file.tensors.items()
        for kind in ("pixel_mean", "pixel_std")
        if name.endswith(kind) and tensor.numel() == 3
    }
    if {"pixel_mean", "pixel_std"} <= set(pixel):
        order: ChannelOrder = "RGB" if pixel["pixel_mean"][0] > pixel["pixel_mean"][2] else "BGR"
        found = in_pixels(order, pixel["pixel_mean"], pixel["pixel_std"])
        return found, found.std == MSRA.std, "implied"
    return (Preprocessing(), False, "implied") if converted else (MSRA, True, "assumed")


def _openmmlab(facts: Mapping[str, Any]) -> tuple[Preprocessing, bool, Sureness] | None:
    """From the training configuration that mmengine and mmcv keep in `meta`, as text."""
    text = facts.get("meta/cfg") or facts.get("meta/config")
    if not isinstance(text, str):
        return None
    values = {
        key: ast.literal_eval(found.group(1))
        for key in ("mean", "std")
        if (found := re.search(rf"\b{key}\s*=\s*([\[(][\d.,\s]+[\])])", text))
    }
    flip = re.search(r"\b(?:bgr_to_rgb|to_rgb)\s*=\s*(True|False)", text)
    if len(values) != 2 or flip is None or any(len(v) != 3 for v in values.values()):
        return None
    order: ChannelOrder = "RGB" if flip.group(1) == "True" else "BGR"
    caffe = re.search(r"\bstyle\s*=\s*['\"](caffe|pytorch)['\"]", text)
    return in_pixels(order, values["mean"], values["std"]), bool(caffe and caffe.group(1) == "caffe"), "stated"


def _huggingface(facts: Mapping[str, Any]) -> tuple[Preprocessing, bool, Sureness] | None:
    """From `preprocessor_config.json` (transformers), `config.json` or `args` (timm), or a lightly-train checkpoint."""
    stride = facts.get("config/downsample_in_bottleneck") is True
    for mean, std in (
        ("preprocessor_config/image_mean", "preprocessor_config/image_std"),
        ("config/pretrained_cfg/mean", "config/pretrained_cfg/std"),
        ("args/mean", "args/std"),
        ("lightly_train/normalize_args/mean", "lightly_train/normalize_args/std"),
    ):
        if mean in facts and std in facts:
            return Preprocessing(mean=_triple(facts[mean]), std=_triple(facts[std])), stride, "stated"
    return None


def in_pixels(order: ChannelOrder, mean: Sequence[float], std: Sequence[float]) -> Preprocessing:
    """Preprocessing from values for pixels of 0 to 255; those of torchvision give exactly its own."""
    if all(math.isclose(value, 1.0) for value in std):
        return Preprocessing(order, 255.0, _triple(mean), _triple(std))
    means, stds = (tuple(value / 255 for value in values) for values in (mean, std))
    for known in (Preprocessing(), INCEPTION):
        if order == known.channel_order and all(
            math.isclose(a, b, rel_tol=1e-6) for a, b in zip((*means, *stds), (*known.mean, *known.std), strict=True)
        ):
            return known
    if (order, tuple(mean), tuple(std)) == (X101.channel_order, X101.mean, X101.std):
        return X101
    return Preprocessing(order, 1.0, _triple(means), _triple(stds))


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
