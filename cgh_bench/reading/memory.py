"""A module in memory as a checkpoint: as a known architecture where that is proven, else as what it is."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgh_bench import backbones
from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.module import from_module
from cgh_bench.checkpoint import Checkpoint, Origin
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.files import sha256
from cgh_bench.data.preprocessing import PREPROCESSINGS, Preprocessing
from cgh_bench.networks.module import Pick, source_of
from cgh_bench.reading import recognition
from cgh_bench.reading.weights_file import WeightsFile

SOURCE = "module"
"""The source in the origin of a module that is of no known architecture: nobody certifies what it computes."""
_HEADS = ("fc.", "head.", "classifier.")
"""How the names of a classifier's tensors begin."""
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
}
"""torch's modules that only call another (the last is `torch.compile`'s), and where they keep it."""
_AGREE = 1e-4
"""Relative to the largest number."""


def from_memory(
    model: Callable[..., Any],
    preprocessing: str | Preprocessing = "imagenet",
    features: Pick = None,
    size: tuple[int, int] = (224, 224),
) -> Checkpoint:
    """`model` as a checkpoint. Its weights are copied; `model` itself is not changed.

    `torch.compile`, `DataParallel` and the like are removed. A network of timm, or a ResNet of torchvision, is taken
    for that architecture if its tensors have exactly the names and shapes, and the features of two images of noise are
    equal. Everything else is a module (see `Module`), and its origin says so.

    Args:
        model: an `nn.Module`, a method of one, or any callable of images (B, 3, H, W).
        preprocessing: what it expects of images: one of `PREPROCESSINGS`, or numbers of its own.
        features: see `Pick`; with it, the model is a module whatever it is.
        size: height and width of the images to try it with.

    Raises:
        UserError: it gives no features, or expects another preprocessing; see `from_module`.
    """
    if not callable(model) or isinstance(model, type):
        raise not_a_model(model)
    if features is not None and not isinstance(features, str) and not callable(features):
        raise UserError(f"features={features!r}; expected a name, or a function such as lambda output: output[1]")
    expected, model = _preprocessing(preprocessing), _unwrapped(model)
    if features is None and isinstance(model, nn.Module) and (known := _known(model, size)):
        _require_its_own(model, expected)
        architecture, weights, source = known
        name = str(getattr(model, "pretrained_cfg", {}).get("architecture", architecture.name))
        origin = Origin(source, f"{type(model).__name__} in memory", reference="memory")
        return Checkpoint(name, architecture, weights, expected, origin)
    architecture = from_module(model, features, size)
    path = source_of(model)
    origin = Origin(SOURCE, path, sha256(Path(path)) if path and Path(path).is_file() else "")
    weights = {key: tensor.detach() for key, tensor in architecture.skeleton.state_dict().items()}
    name = f"{architecture.name.rpartition('.')[2]} (module in memory)"  # a mark that every table shows
    return Checkpoint(name, architecture, weights, expected, origin)


def not_a_model(given: Any) -> UserError:
    """The refusal of what is neither a name nor a checkpoint nor callable; a class is called to build a model."""
    kind = f"the class {given.__name__}" if isinstance(given, type) else f"an object of type {type(given).__name__}"
    return UserError(f"{kind} is not a model; expected a name, a Checkpoint, an nn.Module or a function of images")


def _unwrapped(model: Callable[..., Any]) -> Callable[..., Any]:
    """What torch's wrappers call."""
    kind = type(model)
    if kind.__module__.startswith("torch.") and kind.__name__ in _WRAPPERS:
        return _unwrapped(getattr(model, _WRAPPERS[kind.__name__]))
    return model


def _preprocessing(given: str | Preprocessing) -> Preprocessing:
    if isinstance(given, Preprocessing):
        return given
    if given not in PREPROCESSINGS:
        raise unknown("preprocessing", given, PREPROCESSINGS)
    return PREPROCESSINGS[given]


def _require_its_own(model: nn.Module, expected: Preprocessing) -> None:
    """Refuse mean and std other than those that timm keeps with the network."""
    card = getattr(model, "pretrained_cfg", {})
    own = tuple(tuple(card.get(what) or getattr(expected, what)) for what in ("mean", "std"))
    if own != (expected.mean, expected.std):
        name = next((repr(n) for n, p in PREPROCESSINGS.items() if (p.mean, p.std) == own), "")
        say = name or f"Preprocessing(mean={own[0]}, std={own[1]})"
        raise UserError(f"timm says that {card.get('architecture')} expects mean {own[0]}; pass preprocessing={say}")


def _known(model: nn.Module, size: tuple[int, int]) -> tuple[Architecture, dict[str, Tensor], str] | None:
    """The architecture of a network of timm or torchvision with its weights, and which it is; None without proof."""
    library = type(model).__module__.partition(".")[0]
    if library not in ("timm", "torchvision"):
        return None
    network: Any = copy.deepcopy(model).to("cpu", torch.float32).eval()
    pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            if library == "timm":
                theirs = network.forward_head(network.forward_features(pixels), pre_logits=True)
            else:
                theirs = _before(network, network.fc, pixels)
            architecture = _architecture(network, library)
            tensors, shapes = network.state_dict(), architecture.shapes
            weights = {key: tensor for key, tensor in tensors.items() if key in shapes}
            surplus = [key for key in tensors if key not in shapes and not key.startswith(_HEADS)]
            ours = architecture.with_weights(weights)(pixels)
    except (UserError, AttributeError, KeyError, RuntimeError, AssertionError):
        return None
    same = ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= _AGREE * theirs.abs().max())
    return (architecture, weights, library) if same and not surplus else None


def _architecture(network: Any, library: str) -> Architecture:
    """What its tensors say, or else the name that timm built it by."""
    file = WeightsFile(Path(type(network).__name__), "module in memory", network.state_dict(), {})
    try:
        return recognition.read_opened(file).architecture
    except UserError:
        if library != "timm":
            raise
        return backbones.named(network.pretrained_cfg["architecture"])


def _before(network: nn.Module, head: nn.Module, pixels: Tensor) -> Tensor:
    """What `head` is given."""
    given: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    network(pixels)
    handle.remove()
    return given[-1]
