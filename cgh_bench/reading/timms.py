"""Finding a network of timm in a file: one that it names, that its reader names (`--arch`), or that its shapes tell."""

import hashlib
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgh_bench import backbones
from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.timm import Timm
from cgh_bench.core.errors import UserError
from cgh_bench.networks.base import without_memory
from cgh_bench.reading.candidate import Candidate, as_float32, differences, unchunked
from cgh_bench.reading.efficientnets import timm_names
from cgh_bench.reading.weights_file import WeightsFile

_LEFTOVER = re.compile(
    r"(.*\.|)(mask_token|num_batches_tracked|relative_position_index|attn_mask|bias_mask|periods|rope\..*)|decoder_.*|"
    r"lm_head\..*"
)
"""What networks keep beside their weights, and what pretraining by masked images adds."""
_WRAPPERS = re.compile(r"(module\.)*")
_ARGUMENT = "config/model_args/"
_KWARGS = "args/model_kwargs/"
_CARD = "pretrained_cfg/architecture"
_TABLE = "relative_position_bias_table"
_SHARED = f"rel_pos_bias.{_TABLE}"
_UNTRAINED = {"head.norm.weight": 1.0, "head.norm.bias": 0.0}
"""See `_untrained_norm`."""
INDEX = Path(__file__).with_name("timm_index.json")
"""Which networks of timm have which tensors; written by `tools/timm_index.py`."""


@dataclass(frozen=True)
class FoundTimm(Candidate):
    """A network of timm found in a file; `names` are its origin's own, where timm converts them."""

    architecture: Timm | None

    def weights(self, file: WeightsFile) -> dict[str, Tensor]:
        """See `Candidate`."""
        assert self.architecture is not None
        beside = {name[len(self.location) :]: name for name in file.tensors if name.startswith(self.location)}
        leftover = {key: file.tensors[name] for key, name in beside.items() if _LEFTOVER.fullmatch(key)}
        tensors = {key: as_float32(name, file.tensors[name]) for key, name in self.names.items() if key not in leftover}
        converted = _converted(tensors | leftover, self.architecture)
        return {key: converted[key].contiguous() for key in self.architecture.shapes}


def stated_architecture(file: WeightsFile) -> Timm | None:
    """The network of timm that `file` names: in a Hub folder's `config.json`, a training checkpoint, or on its card."""
    cards = [said[_CARD] for said in file.modules.values() if _CARD in said]
    names = (*(file.facts.get(key) for key in ("config/architecture", "arch", "args/model")), *cards)
    known = [Timm.named(name.split(".")[0]) for name in names if isinstance(name, str)]
    found = next((each for each in known if each), None)
    return replace(found, arguments=_arguments(file, found)) if found else None


def is_the_same(architecture: Architecture, stated: Timm) -> bool:
    """Whether `architecture`, of another family, computes what the network of timm does: all modules are alike."""
    named = backbones.named(stated.name)
    arguments = dict(stated.arguments)
    size = arguments.pop("img_size", 0)
    if size and architecture.image_size != ((size, size) if isinstance(size, int) else tuple(size)):
        return False
    if type(named) is type(architecture) and not arguments:
        sized = re.compile(r"_\d+(?=')").sub
        return sized("", named.identity) == sized("", architecture.identity)
    try:
        arguments = architecture.timm_arguments()
    except UserError:
        return False
    ours = Timm(arguments.pop("model_name"), tuple(arguments.items()))
    return _modules(ours) == _modules(stated)


def _modules(architecture: Timm) -> list[tuple[str, str, list[tuple[str, Any]]]]:
    network: nn.Module = architecture.skeleton.network  # type: ignore[assignment]
    plain = (bool, int, float, str, tuple, type(None))
    return [
        (name, type(module).__name__, [(k, v) for k, v in sorted(vars(module).items()) if isinstance(v, plain)])
        for name, module in network.named_modules()
    ]


def identified_architecture(file: WeightsFile) -> Timm | None:
    """The only network of timm that has exactly the names and shapes of the tensors in `file`; None if none has.

    Raises:
        UserError: several have; they differ in what tensors do not show.
    """
    index = _index()
    for location in _groups(file.tensors, modules=True):
        given = {name[len(location) :]: name for name in file.tensors if name.startswith(location)}
        tensors = {key: file.tensors[name] for key, name in given.items() if "/" not in key}
        renamed = timm_names(tensors)
        shapes = {renamed.get(key, key): tensor.shape for key, tensor in tensors.items()}
        names = {
            name
            for more in index["classifiers"]
            if shapes.keys() >= set(more)
            for name in index["networks"].get(fingerprint(shapes, more), ())
            if name.startswith("tf_") or not renamed
        }
        if len(names) > 1:
            some = f"{', '.join(sorted(names)[:6])}{', …' if len(names) > 6 else ''}"
            raise UserError(f"{file.path} matches {some}, which have the same tensors; choose with --arch")
        if names:
            return Timm.named(names.pop())
    return None


def fingerprint(shapes: Mapping[str, Any], but: Iterable[str] = ()) -> str:
    """The hash of the names and shapes of a network's tensors, in any order, without `but` and what may be absent."""
    lines = (
        f"{key} {tuple(shape)}" for key, shape in shapes.items() if key not in but and not _LEFTOVER.fullmatch(key)
    )
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


@cache
def _index() -> Any:
    return json.loads(INDEX.read_text(encoding="utf-8"))


def find_timm(file: WeightsFile, architecture: Timm) -> list[Candidate]:
    """Every such network in `file`, whole ones first, then those with a problem."""
    found = [_candidate(file, location, architecture) for location in _locations(file.tensors, architecture)]
    return sorted(found, key=lambda network: bool(network.problem))


def _arguments(file: WeightsFile, architecture: Timm) -> tuple[tuple[str, Any], ...]:
    """What `config.json` says beside the name (`model_args`, the pooling, a fixed image size), but the usual."""
    from timm.models import get_model_args

    facts = file.facts
    said = {key.removeprefix(_ARGUMENT): value for key, value in facts.items() if key.startswith(_ARGUMENT)}
    said |= {key.removeprefix(_KWARGS): value for key, value in facts.items() if key.startswith(_KWARGS)}
    pools = [facts.get(key) for key in ("config/global_pool", "config/pretrained_cfg/global_pool", "args/gp")]
    pools += [module.get("global_pool") for module in file.modules.values() if _CARD in module]
    if isinstance(pool := next(filter(None, pools), None), str):
        said.setdefault("global_pool", pool)
    if facts.get("config/pretrained_cfg/fixed_input_size") and "config/pretrained_cfg/input_size" in facts:
        said.setdefault("img_size", facts["config/pretrained_cfg/input_size"][-2:])
    if "args/input_size" in facts:
        said.setdefault("img_size", facts["args/input_size"][-2:])
    elif isinstance(side := facts.get("args/img_size"), int):
        said.setdefault("img_size", (side, side))
    for name, module in file.modules.items():
        if name.rpartition("/")[2] == "patch_embed" and isinstance(module.get("img_size"), tuple):
            said.setdefault("img_size", module["img_size"])
    network: Any = architecture.skeleton.network
    usual = {**get_model_args(network), "in_chans": 3}
    return tuple(
        (key, value)
        for key, value in said.items()
        if key != "num_classes" and (tuple(value) if isinstance(value, list) else value) != usual.get(key)
    )


def _locations(tensors: Mapping[str, Tensor], architecture: Timm) -> Iterator[str]:
    """The prefixes under which most of the network has timm's names; if there are none, those of its origin's names."""
    shapes = architecture.shapes
    anchor = next(iter(shapes))
    ends = [name.removesuffix(anchor) for name in tensors if name.endswith(anchor)]
    if exact := [at for at in ends if 2 * sum(at + key in tensors for key in shapes) > len(shapes)]:
        yield from exact
        return
    yield from (at for at, count in _groups(tensors).items() if 3 * count >= len(shapes))


def _groups(tensors: Iterable[str], modules: bool = False) -> dict[str, int]:
    """The prefixes of dictionaries, and of the `modules` in them, each with the number of tensors below it."""
    counted: dict[str, int] = defaultdict(int)
    for name in tensors:
        container, slash, dotted = name.rpartition("/")
        wrapper = _WRAPPERS.match(dotted)
        start = container + slash + (wrapper.group() if wrapper else "")
        counted[start] += 1
        module, dot, _ = name[len(start) :].partition(".")
        if modules and dot:
            counted[start + module + dot] += 1
    return counted


def _candidate(file: WeightsFile, location: str, architecture: Timm) -> FoundTimm:
    names_of = unchunked(file.tensors) if unchunked(architecture.shapes).keys() == architecture.shapes.keys() else {}
    names_of = names_of or {name: name for name in file.tensors}  # MobileNetV5 has attention in blocks of stages
    at = {name[len(location) :]: as_given for name, as_given in names_of.items() if name.startswith(location)}
    given = {key: name for key, name in at.items() if "/" not in key}
    # `requires_grad` lets the graph of timm's conversion tell which tensor went where.
    leaves = {key: file.tensors[name].detach() for key, name in given.items()}
    leaves = {key: leaf.requires_grad_() if leaf.is_floating_point() else leaf for key, leaf in leaves.items()}
    architecture = _for_positions(_for_pretraining(architecture, leaves), leaves)
    converted = _converted(leaves, architecture)
    used, problem = _examined(leaves, converted, architecture)
    names = {key: name for key, name in given.items() if key in used}
    made_up = [
        key for key in _UNTRAINED if key in converted and not _leaves(converted[key]) & set(map(id, leaves.values()))
    ]
    return FoundTimm(
        location, "timm_model", names, None if problem else architecture, problem, untrained=tuple(made_up)
    )


def _examined(
    leaves: Mapping[str, Tensor], converted: Mapping[str, Tensor], architecture: Timm
) -> tuple[set[str], str]:
    """The tensors that the network is made of, and what is wrong with it: every tensor must be accounted for."""
    shapes, extra = architecture.shapes, set(classifier(architecture))
    network = {
        key: tensor
        for key, tensor in converted.items()
        if key in shapes or not (key in extra or _LEFTOVER.fullmatch(key))
    }
    if wrong := differences(shapes, network, ()):
        return set(), f"{wrong[0]} ({len(wrong)} tensors differ from {architecture.name})"
    key_of = {id(leaf): key for key, leaf in leaves.items()}
    sources = {key: {key_of[leaf] for leaf in _leaves(tensor) if leaf in key_of} for key, tensor in converted.items()}
    used = {source for key in network for source in sources[key]}
    for key, tensor in network.items():
        if not sources[key] and key not in _UNTRAINED:
            return used, f"{key} is missing"
        first, *more = sources[key] or ("",)
        alone = first and not more and sum(first in others for others in sources.values()) == 1
        if alone and leaves[first].numel() != tensor.numel():
            return used, f"{first} is for another size: {tuple(leaves[first].shape)} for {tuple(tensor.shape)}"
    inside = _common_module(used)
    spent = used.union(*(sources[key] for key in converted if key in extra)) | extra
    for key, leaf in leaves.items():
        if key.startswith(inside) and key not in spent and not _LEFTOVER.fullmatch(key) and bool(leaf.any()):
            return used, f"it also has {key}, which {architecture.name} does not have"
    return used, ""


def _leaves(tensor: Tensor) -> set[int]:
    """The ids of the tensors that `tensor` was computed from."""
    if tensor.grad_fn is None:
        return {id(tensor)}
    found, nodes, seen = set(), [tensor.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(id(variable))
        nodes += [following for following, _ in node.next_functions if following is not None]
    return found


def _common_module(names: set[str]) -> str:
    """The longest `module.` that all begin with: of those of open_clip, `visual.`"""
    first, last = min(names), max(names)
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first[: first.rfind(".", 0, same) + 1]


@cache
def classifier(architecture: Timm) -> Mapping[str, torch.Size]:
    """The names and shapes of the tensors that the network with a classifier of two classes has more."""
    with without_memory():
        whole = architecture.network(num_classes=2).state_dict()
    shapes = architecture.shapes
    return {key: tensor.shape for key, tensor in whole.items() if key not in shapes}


def _converted(tensors: Mapping[str, Tensor], architecture: Timm) -> dict[str, Tensor]:
    """`tensors` under timm's names, by timm's own conversion of its origins' names where they are others."""
    network = architecture.skeleton.network
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if renamed := timm_names(tensors):
        return {renamed.get(key, key): tensor for key, tensor in tensors.items()}
    if convert is None or architecture.shapes.keys() <= tensors.keys():
        return dict(tensors)
    try:
        found = dict(convert(dict(tensors), network))
    except (KeyError, RuntimeError, AttributeError, AssertionError, IndexError, TypeError, ValueError):
        return dict(tensors)  # whose names then say what is wrong
    return {**_untrained_norm(found, architecture), **found}


def _untrained_norm(found: Mapping[str, Tensor], architecture: Timm) -> dict[str, Tensor]:
    """The norm behind the pooling, as initialised, for a file of ConvNeXt V2's pretraining (FCMAE), which has none.

    So does timm, when it is given these files (`_create_convnext` of timm/models/convnext.py).
    """
    if "stages.0.blocks.0.mlp.grn.weight" not in found or any(key.startswith("head.") for key in found):
        return {}
    shapes = architecture.shapes
    return {key: torch.full(shapes[key], value) for key, value in _UNTRAINED.items() if key in shapes}


def _for_pretraining(architecture: Timm, tensors: Mapping[str, Tensor]) -> Timm:
    """The network of BEiT's and data2vec's pretraining, for a file of theirs, where fine-tuning has another.

    Its blocks share the biases of relative positions, and its last norm is before the pooling
    (facebookresearch/data2vec_vision d94bbb8, beit/modeling_cyclical.py).
    """
    shapes = architecture.shapes
    if _SHARED in shapes or _SHARED not in tensors or f"blocks.0.attn.{_TABLE}" not in shapes:
        return architecture
    other = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "global_pool": "token"}
    return replace(architecture, arguments=(*architecture.arguments, *other.items()))


def _for_positions(architecture: Timm, tensors: Mapping[str, Tensor]) -> Timm:
    """The network for the image size that the file's position embeddings are for, which timm would resample."""
    shape = architecture.shapes.get("pos_embed")
    given = next((t for key, t in tensors.items() if key.endswith(("pos_embed", "positional_embedding"))), None)
    network: Any = architecture.skeleton.network
    if shape is None or given is None or len(shape) != 3 or "img_size" in dict(architecture.arguments):
        return architecture
    count, prefix = given.numel() // shape[-1], getattr(network, "num_prefix_tokens", 0)
    sides = [math.isqrt(count - extra) for extra in (0, 1, prefix) if math.isqrt(count - extra) ** 2 == count - extra]
    if count == shape[1] or not sides or math.isqrt(shape[1] - prefix) in sides or math.isqrt(shape[1]) in sides:
        return architecture
    side = sides[0] * int(network.feature_info[0]["reduction"])
    return replace(architecture, arguments=(*architecture.arguments, ("img_size", (side, side))))
