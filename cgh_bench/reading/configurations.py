"""What a configuration in a file, or beside it, states of the network and of its images: one function per library."""

import ast
import math
import re
from collections.abc import Iterator
from typing import Any

from cgh_bench.backbones.resnet import STAGES
from cgh_bench.checkpoint import Kind, Property
from cgh_bench.core.errors import UserError
from cgh_bench.data.preprocessing import INCEPTION, MSRA, ChannelOrder, Preprocessing, in_pixels, triple
from cgh_bench.reading.candidate import Candidate, activation
from cgh_bench.reading.weights_file import WeightsFile

Statements = Iterator[Property]


def stated(source: str, kind: Kind = "stated", /, **values: Any) -> Statements:
    """What `source` says of properties, each with its value."""
    return (Property(name, value, kind, source) for name, value in values.items())


def heads_differ(network: Candidate) -> bool:
    """Whether libraries give such a network different numbers of heads."""
    architecture = network.architecture
    return architecture is not None and network.has("heads") and architecture.width(architecture.global_targets) < 768


def configurations(file: WeightsFile, network: Candidate) -> Statements:
    """All that they state, the more certain first.

    Raises:
        UserError: they state a network that is not known here.
    """
    yield from _huggingface(file, network)
    yield from _timm(file)
    yield from _openmmlab(file, network)
    if network.naming == "detectron2":
        yield from _detectron2(file)
    yield from _by_dataset(file)
    yield from _vissl(file)


def _huggingface(file: WeightsFile, network: Candidate) -> Statements:
    """The `config.json` of transformers and its `preprocessor_config.json`."""
    facts = file.facts
    if "config/model_type" in facts:
        for name, key in (
            ("heads", "num_attention_heads"),
            ("norm_eps", "layer_norm_eps"),
            ("activation", "hidden_act"),
            ("stride_in_1x1", "downsample_in_bottleneck"),
        ):
            value = facts.get(f"config/{key}")
            if value is not None and network.has(name):
                value = activation(str(value)) if name == "activation" else value
                yield from stated(f"config.json: {key}", **{name: value})
    said = {key.partition("/")[2]: value for key, value in facts.items() if key.startswith("preprocessor_config/")}
    if not said:
        return
    where = "preprocessor_config.json"
    scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    white = 255 * scale
    yield from stated(where, channel_order="RGB", input_range=1.0 if math.isclose(white, 1.0) else white)
    if said.get("do_normalize", True) is False:
        yield from stated(f"{where}: do_normalize", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    for name in ("mean", "std"):
        if f"image_{name}" in said:
            yield from stated(f"{where}: image_{name}", **{name: triple(said[f"image_{name}"])})


def _timm(file: WeightsFile) -> Statements:
    """The `config.json` of timm and the `args` of its training; BEiT's and data2vec's; lightly-train's."""
    where = "args/imagenet_default_mean_and_std"
    if where in file.facts:
        yield from stated(where, **vars(Preprocessing() if file.facts[where] else INCEPTION))
    said = False
    for where in ("config/pretrained_cfg", "args", "lightly_train/normalize_args"):
        for name in ("mean", "std"):
            value = file.facts.get(f"{where}/{name}")
            if isinstance(value, list | tuple) and len(value) == 3:
                said = True
                yield from stated(f"{where}/{name}", **{name: triple(value)})
    if said:
        yield from stated("mean and std", channel_order="RGB", input_range=1.0)


def _openmmlab(file: WeightsFile, network: Candidate) -> Statements:
    """The training configuration that mmengine and mmcv keep in `meta`, as text."""
    text = file.facts.get("meta/cfg") or file.facts.get("meta/config")
    if not isinstance(text, str):
        return
    where = "meta/cfg"
    values = {
        key: ast.literal_eval(found.group(1))
        for key in ("mean", "std")
        if (found := re.search(rf"\b{key}\s*=\s*([\[(][\d.,\s]+[\])])", text))
    }
    flip = re.search(r"\b(?:bgr_to_rgb|to_rgb)\s*=\s*(True|False)", text)
    if len(values) == 2 and flip is not None and all(len(v) == 3 for v in values.values()):
        # mmpretrain's CIFAR images are RGB when they are loaded (v1.2.0 configs/_base_/datasets/cifar10_bs16.py).
        is_rgb = flip.group(1) == "True" or bool(re.search(r"['\"]CIFAR100?['\"]", text))
        yield from stated(where, **vars(in_pixels("RGB" if is_rgb else "BGR", values["mean"], values["std"])))
    backbone = _nested(_parsed(text), "backbone")
    if network.has("dilation"):
        style = backbone.get("style") or next(iter(re.findall(r"\bstyle\s*=\s*['\"](caffe|pytorch)['\"]", text)), "")
        if style:
            yield from stated(where, stride_in_1x1=style == "caffe")
        if isinstance(norm := backbone.get("norm_cfg"), dict) and "eps" in norm:
            yield from stated(where, norm_eps=float(norm["eps"]))
        dilations, strides = (tuple(backbone.get(n) or usual) for n, usual in _MM_USUAL.items())
        if len(dilations) < len(STAGES):  # a C4 detector, whose last stage is its head's
            dilations, strides = (*dilations, 1), (*strides, 2)
        if any((d > 1) != (s == 1) for d, s in list(zip(dilations, strides, strict=True))[1:]) or strides[0] != 1:
            raise UserError(f"{file.path}: strides {strides} with dilations {dilations} are not known here")
        if backbone:
            is_first = max(dilations) > 1 and not backbone.get("contract_dilation")
            yield from stated(where, dilation=dilations, dilate_first=is_first)
    if network.has("heads"):
        arch = backbone.get("arch")
        if isinstance(arch, dict) and isinstance(arch.get("num_heads"), int):
            yield from stated(where, heads=arch["num_heads"])
        elif "mocov3-s" in str(arch or re.findall(r"['\"]mocov3-s", text)) and heads_differ(network):
            yield from stated(where, heads=12)


_MM_USUAL = {"dilations": (1, 1, 1, 1), "strides": (1, 2, 2, 2)}


def _detectron2(file: WeightsFile) -> Statements:
    """The configuration in the file (ours) or in the run's folder, or the buffers that older versions have."""
    inside = {key.removeprefix("cfg/"): value for key, value in file.facts.items() if key.startswith("cfg/MODEL/")}
    inside |= {"INPUT/FORMAT": file.facts["cfg/INPUT/FORMAT"]} if inside else {}
    beside = inside or file.beside("config.yaml")
    where = "cfg" if inside else "config.yaml beside the file"
    if "MODEL/PIXEL_MEAN" in beside and "MODEL/PIXEL_STD" in beside:
        order: ChannelOrder = "BGR" if beside.get("INPUT/FORMAT", "BGR") == "BGR" else "RGB"
        images = in_pixels(order, beside["MODEL/PIXEL_MEAN"], beside["MODEL/PIXEL_STD"])
        yield from stated(where, **vars(images))
        yield from stated(where, stride_in_1x1=bool(beside.get("MODEL/RESNETS/STRIDE_IN_1X1", True)))
        if (last := beside.get("MODEL/RESNETS/RES5_DILATION", 1)) > 1:
            yield from stated(where, dilation=(1, 1, 1, last), dilate_first=True)
    pixel = {
        kind: tuple(float(v) for v in tensor.flatten())
        for name, tensor in file.tensors.items()
        for kind in ("pixel_mean", "pixel_std")
        if name.endswith(kind) and tensor.numel() == 3
    }
    if {"pixel_mean", "pixel_std"} <= set(pixel):
        order = "RGB" if pixel["pixel_mean"][0] > pixel["pixel_mean"][2] else "BGR"
        images = in_pixels(order, pixel["pixel_mean"], pixel["pixel_std"])
        yield from stated("pixel_mean and pixel_std in the file", "implied", **vars(images))
        where = "pixel_std in the file: 1 is for MSRA's networks"
        yield from stated(where, "implied", stride_in_1x1=images.std == MSRA.std)
    if file.facts.get("matching_heuristics") is True and file.facts.get("__author__") != "Caffe2":
        where = "matching_heuristics in the file: converted from PyTorch"
        yield from stated(where, "implied", **vars(Preprocessing()), stride_in_1x1=False)


def _by_dataset(file: WeightsFile) -> Statements:
    """The dataset that solo-learn and SupContrast were trained on, which says mean and std."""
    for known, where, said in (
        (_SOLO_LEARN, "args.json beside the file: data/dataset", file.beside("args.json").get("data/dataset")),
        (_SOLO_LEARN, "hyper_parameters/dataset", file.facts.get("hyper_parameters/dataset")),
        (_SUPCONTRAST, "opt/dataset", file.facts.get("opt/dataset")),
    ):
        if said in known:
            mean, std = known[str(said)]
            yield from stated(where, **vars(Preprocessing(mean=mean, std=std)))


_SOLO_LEARN = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": ((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
    "imagenet100": (Preprocessing().mean, Preprocessing().std),
    "imagenet": (Preprocessing().mean, Preprocessing().std),
}
"""vturrisi/solo-learn (9187ea3) solo/data/pretrain_dataloader.py."""
_SUPCONTRAST = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
"""HobbitLong/SupContrast main_supcon.py."""


def _vissl(file: WeightsFile) -> Statements:
    """The `train_config.yaml` that VISSL leaves beside its checkpoints (v0.1.6 vissl/utils/hydra_config.py)."""
    beside = file.beside("train_config.yaml")
    if beside.get("MODEL/TRUNK/RESNETS/LAYER4_STRIDE", 2) != 2:
        raise UserError(f"{file.path}: its last stage does not stride (LAYER4_STRIDE); load it in VISSL and wrap it")
    steps = [key.rpartition("/")[0] for key, value in beside.items() if value == "Normalize" and "TRANSFORMS" in key]
    for step in (each for each in steps if each.startswith("DATA/TRAIN/")):
        mean, std = (tuple(beside.get(f"{step}/{name}", ())) for name in ("mean", "std"))
        if len(mean) == len(std) == 3:
            is_bgr = beside.get("MODEL/INPUT_TYPE") == "bgr"  # turned after they are normalised
            images = Preprocessing("BGR", 1.0, mean[::-1], std[::-1]) if is_bgr else Preprocessing(mean=mean, std=std)
            yield from stated("train_config.yaml beside the file: Normalize", **vars(images))


def _parsed(text: str) -> dict[str, Any]:
    """The values of a configuration in Python, made of constants and `dict(…)`; whatever else is there is None."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    targets = [(node.targets[0], node.value) for node in body if isinstance(node, ast.Assign)]
    return {target.id: _literal(value) for target, value in targets if isinstance(target, ast.Name)}


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        return dict(zip(keys, map(_literal, node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(each) for each in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _nested(tree: Any, name: str) -> dict[str, Any]:
    """The first dictionary called `name` in `tree`."""
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return {}
    if isinstance(tree.get(name), dict):
        return tree[name]
    return next((found for each in tree.values() if (found := _nested(each, name))), {})
