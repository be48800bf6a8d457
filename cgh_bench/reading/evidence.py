"""What no tensor tells of a network and of its images, and how it is known: stated, implied by the origin, or assumed.

Statements are collected from the most to the least certain (`--set`, a pickled network's own attributes, the
configuration in the file or beside it, the origin's code); the first for a property counts, and what none is made for
has the usual value and is called assumed. Where known libraries do it differently that is an error with the choices.
"""

import ast
import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from cgh_bench.backbones import families
from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.resnet import STAGES
from cgh_bench.checkpoint import Checkpoint, Kind, Property
from cgh_bench.core.config import parse
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.data.preprocessing import ChannelOrder, Preprocessing
from cgh_bench.reading.candidate import Candidate, activation
from cgh_bench.reading.readers import READERS
from cgh_bench.reading.timms import classifier
from cgh_bench.reading.weights_file import WeightsFile

MSRA = Preprocessing("BGR", 255.0, (103.530, 116.280, 123.675), (1.0, 1.0, 1.0))
"""Detectron's and detectron2's default, for the caffe networks of MSRA: PIXEL_MEAN, PIXEL_STD, INPUT.FORMAT of
facebookresearch/detectron2@v0.6 detectron2/config/defaults.py."""
X101 = Preprocessing("BGR", 255.0, (103.530, 116.280, 123.675), (57.375, 57.120, 58.395))
"""The preprocessing of X-101-32x8d.pkl; source: facebookresearch/detectron2@v0.6
configs/COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml."""
INCEPTION = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PREPROCESSINGS = {
    "imagenet": Preprocessing(),
    "inception": INCEPTION,
    "clip": Preprocessing(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
    "caffe": MSRA,
    "none": Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}
"""By name: pixels in [0, 1], minus mean, over std. `none` leaves them in [0, 1]."""
IMAGES = tuple(field.name for field in dataclasses.fields(Preprocessing))
"""The properties of every checkpoint that its preprocessing consists of."""

_USUAL: tuple[Kind, str] = ("assumed", "the usual value")
Statements = Iterator[Property]


def settle(
    file: WeightsFile, network: Candidate, source: str, settings: Sequence[str] = (), may_assume: bool = False
) -> tuple[Architecture, Preprocessing, tuple[Property, ...]]:
    """The architecture and preprocessing of `network` in `file` of the origin `source`, and how each property is known.

    With `may_assume` the usual is taken where libraries differ: for a comparison with a reference, which tells.

    Raises:
        UserError: a property is of no known value, a setting is wrong, or nothing says what libraries do differently.
    """
    architecture = network.architecture
    assert architecture is not None
    _require_square(file, network)
    _require_alike(file, network)
    reader = READERS.get(source)
    given = list(_set(architecture, settings))
    found: dict[str, Property] = {}
    for said in chain(given, _modules(file, network), _configurations(file, network), _implied(file, network, source)):
        found.setdefault(said.name, said)
    names = (*architecture.untold, *IMAGES)
    architecture, preprocessing = _applied(architecture, Preprocessing(), [found[n] for n in names if n in found])
    how = _USUAL
    if network.stated_by:
        how = "stated", network.stated_by
    elif reader is not None and reader.implies is not None:
        how = "implied", reader.url
    properties = tuple(
        found.get(name)
        or Property(name, _value(architecture, preprocessing, name), *(how if name not in IMAGES else _USUAL))
        for name in names
    )
    if network.naming == "timm_model":
        arguments = ", ".join(f"{key}={value}" for key, value in architecture.timm_arguments().items())
        made_up = (Property(key, "as initialised", "assumed", "not in the file") for key in network.untrained)
        told: tuple[Kind, str] = ("implied", "no other network of timm has these tensors")
        told = ("stated", network.stated_by) if network.stated_by else told
        properties = (Property("architecture", arguments, *told), *made_up, *properties)
    if not may_assume:
        _require_decided(file, network, properties)
    return architecture, preprocessing, properties


def adjusted(checkpoint: Checkpoint, settings: Sequence[str]) -> Checkpoint:
    """`checkpoint` with `settings`, the `NAME=VALUE` of properties.

    Raises:
        UserError: no such property, or a value that it cannot have.
    """
    given = list(_set(checkpoint.architecture, settings))
    architecture, preprocessing = _applied(checkpoint.architecture, checkpoint.preprocessing, given)
    rest = [each for each in checkpoint.origin.properties if each.name not in {said.name for said in given}]
    origin = dataclasses.replace(checkpoint.origin, properties=(*given, *rest))
    return dataclasses.replace(checkpoint, architecture=architecture, preprocessing=preprocessing, origin=origin)


def split_settings(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of `settings` that are a checkpoint's, and those that are a task's."""
    names = {"preprocessing", *IMAGES, *(name for family in families().values() for name in family.UNTOLD)}
    of_weights = [setting for setting in settings if setting.partition("=")[0] in names]
    return of_weights, [setting for setting in settings if setting not in of_weights]


def usual_preprocessing(name: str) -> Preprocessing:
    """What timm does to the images of the first weights of its architecture `name`."""
    from timm.models import PretrainedCfg, get_pretrained_cfg

    usual = get_pretrained_cfg(name) or PretrainedCfg()
    return Preprocessing(mean=_triple(usual.mean), std=_triple(usual.std))


def _set(architecture: Architecture, settings: Sequence[str]) -> Statements:
    for setting in settings:
        name, _, text = setting.partition("=")
        if name == "preprocessing":
            if text not in PREPROCESSINGS:
                raise unknown("preprocessing", text, PREPROCESSINGS)
            yield from _images(PREPROCESSINGS[text], "stated", f"--set {setting}")
        elif name in IMAGES or name in architecture.untold:
            kinds = typing.get_type_hints(Preprocessing if name in IMAGES else type(architecture))
            try:
                value = parse(text, kinds.get(name.replace(".", "_"), int))
            except UserError as error:
                raise UserError(f"--set {setting}: {error}") from None
            yield Property(name, value, "stated", f"--set {setting}")
        else:
            raise unknown(f"property of {architecture.name}", name, (*architecture.untold, "preprocessing", *IMAGES))


def _applied(
    architecture: Architecture, preprocessing: Preprocessing, said: Sequence[Property]
) -> tuple[Architecture, Preprocessing]:
    of_images = {each.name: each.value for each in said if each.name in IMAGES}
    of_network = {each.name.replace(".", "_"): each.value for each in said if each.name in architecture.untold}
    return architecture.having(**of_network), dataclasses.replace(preprocessing, **of_images)


def _value(architecture: Architecture, preprocessing: Preprocessing, name: str) -> Any:
    return getattr(preprocessing, name) if name in IMAGES else architecture.value(name)


def _images(preprocessing: Preprocessing, kind: Kind, source: str) -> Statements:
    for name in IMAGES:
        yield Property(name, getattr(preprocessing, name), kind, source)


def _require_decided(file: WeightsFile, network: Candidate, properties: Sequence[Property]) -> None:
    """Refuse an assumption that known libraries make differently."""
    assumed = {each.name for each in properties if each.kind == "assumed"}
    architecture = network.architecture
    assert architecture is not None
    if assumed & {"stem.stride", "stem.padding", "stem.pool"} and not architecture.value("stem.pool"):
        raise UserError(
            f"{file.path}: its first convolution is 3x3, and nothing says how it is used; add --set stem.stride=1 "
            "--set stem.padding=1 --set stem.pool=false (usual for CIFAR), stem.padding=2 (solo-learn's), or "
            "stem.stride=2 and stem.pool=true"
        )
    if "heads" in assumed and _sincos(file, network) == "mae" and _is_small(network):
        raise UserError(
            f"{file.path}: its position embeddings are MAE's, and nothing says how many heads it has; add --set "
            "heads=12 (solo-learn) or --set heads=6 (timm's small network; 3 of the tiny one)"
        )
    if network.naming == "detectron2" and {"mean", "stride_in_1x1"} <= assumed:
        raise UserError(
            f"{file.path}: detectron2 trained it, and neither it nor a config.yaml beside it says on which images; add "
            "--set preprocessing=caffe --set stride_in_1x1=true (detectron2's default, MSRA's networks), or --set "
            "preprocessing=imagenet --set stride_in_1x1=false (MoCo's)"
        )


def _require_square(file: WeightsFile, network: Candidate) -> None:
    """Refuse images that are not square, of which a plain vision transformer's tensors tell nothing."""
    if not _has(network, "positions"):
        return
    cards = [
        said["img_size"] for name, said in file.modules.items() if name.endswith("patch_embed") and "img_size" in said
    ]
    for size in (file.facts.get("config/image_size"), file.facts.get("args/img_size"), *cards):
        if isinstance(size, list | tuple) and len(set(size)) > 1:
            raise UserError(
                f"{file.path}: its position embeddings are for images of {'x'.join(map(str, size))}; accepted: square "
                "images, or name a network of timm by --arch"
            )


def _require_alike(file: WeightsFile, network: Candidate) -> None:
    """Refuse a pickled network of timm whose modules are others than those of the network that it names."""
    if not file.modules or network.naming != "timm_model":
        return
    architecture: Any = network.architecture
    heads = {key.rpartition(".")[0] for key in classifier(architecture)}
    for name, module in architecture.skeleton.network.named_modules():
        said = file.modules.get(f"{network.location}{name}")
        if said is None or name in heads:
            continue
        wrong = [key for key in _TELLING if key in said and getattr(module, key, said[key]) != said[key]]
        classes = {said["class"], type(module).__name__}
        is_other = len(classes) > 1 and not classes <= _IDLE and not any(True for _ in module.children())
        if wrong or is_other:
            told = ", ".join(f"{key}={said[key]}" for key in wrong)
            raise UserError(
                f"{file.path}: {name} is {said['class']} {told}".rstrip() + f", which that of {architecture.name} "
                "is not; load the network in Python and pass it to cgh_bench.wrap"
            )


_TELLING = ("stride", "padding", "dilation", "eps", "num_heads", "approximate", "negative_slope")
_IDLE = {"Identity", "Dropout", "DropPath"}
"""What modules compute nothing in eval mode."""


def _is_small(network: Candidate) -> bool:
    """Whether libraries give it different numbers of heads."""
    architecture = network.architecture
    return architecture is not None and _has(network, "heads") and architecture.width(architecture.global_targets) < 768


def _has(network: Candidate, name: str) -> bool:
    """Whether the property `name` makes a difference to it."""
    return network.architecture is not None and name in network.architecture.untold


# A pickled network's own attributes


def _modules(file: WeightsFile, network: Candidate) -> Statements:
    """What the modules that hold the network's tensors say of themselves."""
    holders = [network.holder(file, key) for key in network.names]
    if not any(holders) or not _has(network, "norm_eps"):
        return
    eps = next((("norm_eps", said["eps"]) for said in holders if "eps" in said), None)
    for name, value in (*network.attributes(file), *filter(None, [eps])):
        yield Property(name, value, "stated", "the pickled network's own attributes")


# Configuration in the file or beside it


def _configurations(file: WeightsFile, network: Candidate) -> Statements:
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
            if value is not None and _has(network, name):
                value = activation(str(value)) if name == "activation" else value
                yield Property(name, value, "stated", f"config.json: {key}")
    said = {key.partition("/")[2]: value for key, value in facts.items() if key.startswith("preprocessor_config/")}
    if not said:
        return
    where = "preprocessor_config.json"
    scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    white = 255 * scale
    yield Property("channel_order", "RGB", "stated", where)
    yield Property("input_range", 1.0 if math.isclose(white, 1.0) else white, "stated", where)
    if said.get("do_normalize", True) is False:
        yield Property("mean", (0.0, 0.0, 0.0), "stated", f"{where}: do_normalize")
        yield Property("std", (1.0, 1.0, 1.0), "stated", f"{where}: do_normalize")
    for name in ("mean", "std"):
        if f"image_{name}" in said:
            yield Property(name, _triple(said[f"image_{name}"]), "stated", f"{where}: image_{name}")


def _timm(file: WeightsFile) -> Statements:
    """The `config.json` of timm and the `args` of its training; BEiT's and data2vec's; lightly-train's."""
    where = "args/imagenet_default_mean_and_std"
    if where in file.facts:
        yield from _images(Preprocessing() if file.facts[where] else INCEPTION, "stated", where)
    said = False
    for where in ("config/pretrained_cfg", "args", "lightly_train/normalize_args"):
        for name in ("mean", "std"):
            value = file.facts.get(f"{where}/{name}")
            if isinstance(value, list | tuple) and len(value) == 3:
                said = True
                yield Property(name, _triple(value), "stated", f"{where}/{name}")
    if said:
        yield Property("channel_order", "RGB", "stated", "mean and std")
        yield Property("input_range", 1.0, "stated", "mean and std")


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
        yield from _images(in_pixels("RGB" if is_rgb else "BGR", values["mean"], values["std"]), "stated", where)
    backbone = _nested(_parsed(text), "backbone")
    if _has(network, "dilation"):
        style = backbone.get("style") or next(iter(re.findall(r"\bstyle\s*=\s*['\"](caffe|pytorch)['\"]", text)), "")
        if style:
            yield Property("stride_in_1x1", style == "caffe", "stated", where)
        if isinstance(norm := backbone.get("norm_cfg"), dict) and "eps" in norm:
            yield Property("norm_eps", float(norm["eps"]), "stated", where)
        dilations, strides = (tuple(backbone.get(n) or usual) for n, usual in _MM_USUAL.items())
        if len(dilations) < len(STAGES):  # a C4 detector, whose last stage is its head's
            dilations, strides = (*dilations, 1), (*strides, 2)
        if any((d > 1) != (s == 1) for d, s in list(zip(dilations, strides, strict=True))[1:]) or strides[0] != 1:
            raise UserError(f"{file.path}: strides {strides} with dilations {dilations} are not known here")
        if backbone:
            is_first = max(dilations) > 1 and not backbone.get("contract_dilation")
            yield Property("dilation", dilations, "stated", where)
            yield Property("dilate_first", is_first, "stated", where)
    if _has(network, "heads"):
        arch = backbone.get("arch")
        if isinstance(arch, dict) and isinstance(arch.get("num_heads"), int):
            yield Property("heads", arch["num_heads"], "stated", where)
        elif "mocov3-s" in str(arch or re.findall(r"['\"]mocov3-s", text)) and _is_small(network):
            yield Property("heads", 12, "stated", where)


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
        yield from _images(images, "stated", where)
        yield Property("stride_in_1x1", bool(beside.get("MODEL/RESNETS/STRIDE_IN_1X1", True)), "stated", where)
        if (last := beside.get("MODEL/RESNETS/RES5_DILATION", 1)) > 1:
            yield Property("dilation", (1, 1, 1, last), "stated", where)
            yield Property("dilate_first", True, "stated", where)
    pixel = {
        kind: tuple(float(v) for v in tensor.flatten())
        for name, tensor in file.tensors.items()
        for kind in ("pixel_mean", "pixel_std")
        if name.endswith(kind) and tensor.numel() == 3
    }
    if {"pixel_mean", "pixel_std"} <= set(pixel):
        order = "RGB" if pixel["pixel_mean"][0] > pixel["pixel_mean"][2] else "BGR"
        images = in_pixels(order, pixel["pixel_mean"], pixel["pixel_std"])
        yield from _images(images, "implied", "pixel_mean and pixel_std in the file")
        is_caffe = images.std == MSRA.std
        yield Property("stride_in_1x1", is_caffe, "implied", "pixel_std in the file: 1 is for MSRA's networks")
    converted = file.facts.get("matching_heuristics") is True and file.facts.get("__author__") != "Caffe2"
    if converted:
        where = "matching_heuristics in the file: converted from PyTorch"
        yield from _images(Preprocessing(), "implied", where)
        yield Property("stride_in_1x1", False, "implied", where)


def _by_dataset(file: WeightsFile) -> Statements:
    """The dataset that solo-learn and SupContrast were trained on, which says mean and std."""
    for known, where, said in (
        (_SOLO_LEARN, "args.json beside the file: data/dataset", file.beside("args.json").get("data/dataset")),
        (_SOLO_LEARN, "hyper_parameters/dataset", file.facts.get("hyper_parameters/dataset")),
        (_SUPCONTRAST, "opt/dataset", file.facts.get("opt/dataset")),
    ):
        if said in known:
            mean, std = known[str(said)]
            yield from _images(Preprocessing(mean=mean, std=std), "stated", where)


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
            yield from _images(images, "stated", "train_config.yaml beside the file: Normalize")


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
        found: dict[str, Any] = tree[name]
        return found
    return next((found for each in tree.values() if (found := _nested(each, name))), {})


# The origin's own code


def _implied(file: WeightsFile, network: Candidate, source: str) -> Statements:
    architecture, reader = network.architecture, READERS.get(source)
    assert architecture is not None
    if network.naming == "caffe2":
        is_resnext = architecture.name.startswith("resnext")
        yield from _images(X101 if is_resnext else MSRA, "implied", READERS["msra"].url)
        yield Property("stride_in_1x1", not is_resnext, "implied", READERS["msra"].url)
    if _has(network, "positions"):
        if _is_small(network) and _sincos(file, network) == "moco_v3":
            yield Property("heads", 12, "implied", f"its position embeddings are MoCo v3's: {READERS['moco_v3'].url}")
        if network.naming.startswith("vit_huggingface"):
            yield Property("norm_eps", 1e-12, "implied", "the default of transformers' ViTConfig")
        if network.naming.startswith(("vit_huggingface", "dinov2_huggingface")):
            yield Property("positions", "transformers", "implied", READERS["huggingface"].url)
        if network.naming == "vit_dinov2" or (
            "blocks.0.ls1.gamma" in network.names and architecture.size_multiple == 14
        ):
            yield Property("positions", "dino", "implied", "https://github.com/facebookresearch/dinov2 (b8931f7)")
    if reader is not None and reader.implies is not None:
        for name, value in reader.implies(architecture).items():
            yield Property(name, value, "implied", reader.url)
    if reader is not None and reader.preprocessing is not None:
        yield from _images(reader.preprocessing, "implied", reader.url)
    if network.naming == "timm_model" or network.stated is not None:
        named = network.stated or architecture
        yield from _images(usual_preprocessing(named.name), "implied", f"timm's pretrained_cfg of {named.name}")


def _sincos(file: WeightsFile, network: Candidate) -> str:
    """Whose fixed position embeddings the network has: `moco_v3`, `mae`, or nobody's that is known."""
    vit = network.architecture
    if vit is None or "pos_embed" not in network.names:
        return ""
    side, dim = vit.image_size[0] // vit.size_multiple, vit.width(vit.global_targets)
    given = file.tensors[network.names["pos_embed"]].float()[0, -side * side :]
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    parts = [at.flatten().double()[:, None] * omega for at in (rows, columns)]
    waves: list[Tensor] = [torch.cat([part.sin(), part.cos()], dim=1) for part in parts]
    for owner, order in (("moco_v3", waves), ("mae", waves[::-1])):
        if torch.allclose(torch.cat(order, dim=1).float(), given, atol=1e-3):
            return owner
    return ""


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
