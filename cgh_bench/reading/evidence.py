"""Properties of a network and its images that no tensor tells: stated, implied by the origin, or assumed.

Statements are collected from the most to the least certain (`--set`, a pickled network's own attributes, the
configuration in the file or beside it, the origin's code); the first for a property counts. A property without a
statement has the usual value and is called assumed; where known libraries differ, it is an error that lists the
choices.
"""

import dataclasses
import typing
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from cgh_bench.backbones import families
from cgh_bench.backbones.base import Architecture
from cgh_bench.checkpoint import Checkpoint, Kind, Property
from cgh_bench.core.config import parse
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.data.preprocessing import IMAGES, MSRA, PREPROCESSINGS, X101, Preprocessing, triple
from cgh_bench.reading.candidate import Candidate
from cgh_bench.reading.configurations import Statements, configurations, heads_differ, stated
from cgh_bench.reading.readers import READERS
from cgh_bench.reading.timms import classifier
from cgh_bench.reading.weights_file import WeightsFile

_USUAL: tuple[Kind, str] = ("assumed", "the usual value")


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
    for said in chain(given, _modules(file, network), configurations(file, network), _implied(file, network, source)):
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
        told: tuple[Kind, str] = ("implied", "no other network of timm has tensors of these names and shapes")
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
    """The `settings` of a checkpoint, and those of a task."""
    names = {"preprocessing", *IMAGES, *(name for family in families().values() for name in family.UNTOLD)}
    of_weights = [setting for setting in settings if setting.partition("=")[0] in names]
    return of_weights, [setting for setting in settings if setting not in of_weights]


def usual_preprocessing(name: str) -> Preprocessing:
    """What timm does to the images of the first weights of its architecture `name`."""
    from timm.models import PretrainedCfg, get_pretrained_cfg

    usual = get_pretrained_cfg(name) or PretrainedCfg()
    return Preprocessing(mean=triple(usual.mean), std=triple(usual.std))


def _set(architecture: Architecture, settings: Sequence[str]) -> Statements:
    for setting in settings:
        name, _, text = setting.partition("=")
        if name == "preprocessing":
            if text not in PREPROCESSINGS:
                raise unknown("preprocessing", text, PREPROCESSINGS)
            yield from stated(f"--set {setting}", **vars(PREPROCESSINGS[text]))
        elif name in IMAGES or name in architecture.untold:
            kinds = typing.get_type_hints(Preprocessing if name in IMAGES else type(architecture))
            try:
                value = parse(text, kinds.get(name.replace(".", "_"), int))
            except UserError as error:
                raise UserError(f"--set {setting}: {error}") from None
            yield from stated(f"--set {setting}", **{name: value})
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


def _require_decided(file: WeightsFile, network: Candidate, properties: Sequence[Property]) -> None:
    """Refuse an assumption that known libraries make differently."""
    assumed = {each.name for each in properties if each.kind == "assumed"}
    architecture = network.architecture
    assert architecture is not None
    if assumed & {"stem.stride", "stem.padding", "stem.pool"} and not architecture.value("stem.pool"):
        raise UserError(
            f"{file.path}: its first convolution is 3x3, of unknown stride and padding; add --set stem.stride=1 "
            "--set stem.padding=1 --set stem.pool=false (usual for CIFAR), stem.padding=2 (solo-learn's), or "
            "stem.stride=2 and stem.pool=true"
        )
    if "heads" in assumed and _sincos(file, network) == "mae" and heads_differ(network):
        raise UserError(
            f"{file.path}: its position embeddings are MAE's, but the number of heads is not stated; add --set "
            "heads=12 (solo-learn) or --set heads=6 (timm's small network; 3 of the tiny one)"
        )
    if network.naming == "detectron2" and {"mean", "stride_in_1x1"} <= assumed:
        raise UserError(
            f"{file.path}: a detectron2 model of unknown preprocessing (no config.yaml beside it); add "
            "--set preprocessing=caffe --set stride_in_1x1=true (detectron2's default, MSRA's networks), or --set "
            "preprocessing=imagenet --set stride_in_1x1=false (MoCo's)"
        )


def _require_square(file: WeightsFile, network: Candidate) -> None:
    """Refuse images that are not square, of which a plain vision transformer's tensors tell nothing."""
    if not network.has("positions"):
        return
    cards = [
        said["img_size"] for name, said in file.modules.items() if name.endswith("patch_embed") and "img_size" in said
    ]
    for size in (file.facts.get("config/image_size"), file.facts.get("args/img_size"), *cards):
        if isinstance(size, list | tuple) and len(set(size)) > 1:
            raise UserError(
                f"{file.path}: its position embeddings are for images of {'x'.join(map(str, size))}; accepted: square "
                "images, or name a timm network with --arch"
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


# A pickled network's own attributes


def _modules(file: WeightsFile, network: Candidate) -> Statements:
    """What the modules that hold the network's tensors say of themselves."""
    holders = [network.holder(file, key) for key in network.names]
    if not any(holders) or not network.has("norm_eps"):
        return
    eps = [("norm_eps", said["eps"]) for said in holders if "eps" in said][:1]
    yield from stated("the pickled network's own attributes", **dict([*eps, *network.attributes(file)]))


# The origin's own code


def _implied(file: WeightsFile, network: Candidate, source: str) -> Statements:
    architecture, reader = network.architecture, READERS.get(source)
    assert architecture is not None
    if network.naming == "caffe2":
        is_resnext = architecture.name.startswith("resnext")
        images = X101 if is_resnext else MSRA
        yield from stated(READERS["msra"].url, "implied", **vars(images), stride_in_1x1=not is_resnext)
    if network.has("positions"):
        if heads_differ(network) and _sincos(file, network) == "moco_v3":
            yield from stated(f"its position embeddings are MoCo v3's: {READERS['moco_v3'].url}", "implied", heads=12)
        if network.naming.startswith("vit_huggingface"):
            yield from stated("the default of transformers' ViTConfig", "implied", norm_eps=1e-12)
        if network.naming.startswith(("vit_huggingface", "dinov2_huggingface")):
            yield from stated(READERS["huggingface"].url, "implied", positions="transformers")
        if network.naming == "vit_dinov2" or (
            "blocks.0.ls1.gamma" in network.names and architecture.size_multiple == 14
        ):
            yield from stated("https://github.com/facebookresearch/dinov2 (b8931f7)", "implied", positions="dino")
    if reader is not None and reader.implies is not None:
        yield from stated(reader.url, "implied", **reader.implies(architecture))
    if reader is not None and reader.preprocessing is not None:
        yield from stated(reader.url, "implied", **vars(reader.preprocessing))
    if network.naming == "timm_model" or network.stated is not None:
        named = network.stated or architecture
        usual = usual_preprocessing(named.name)
        yield from stated(f"timm's pretrained_cfg of {named.name}", "implied", **vars(usual))


def _sincos(file: WeightsFile, network: Candidate) -> str:
    """The origin of the network's fixed position embeddings: `moco_v3`, `mae`, or unknown (empty)."""
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
