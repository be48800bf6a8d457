"""Finding the residual trunks among the tensors of a file, by structure alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from cgh_bench.backbones.resnet import ARCHS, Architecture
from cgh_bench.backbones.resnet_names import BUFFERS, NAMINGS, canonical_names
from cgh_bench.backbones.vit import ViT

_ANCHOR = "layer1.0.conv1.weight"
_WRAPPERS = ("module", "_orig_mod")
_LAST_STAGE = {"roi_heads", "roi_head.shared_head", "shared_head"}
_HEAD = re.compile(r"[._]")
_LEFTOVER = re.compile(r".*_momentum|stem\.(?:fc|projection_head|prototypes)\..*")
"""What converters leave inside a trunk by mistake, and Caffe2's optimiser."""
COUNTER = ("num_batches_tracked",)
"""Old PyTorch, detectron2 and Caffe2 have no batch counters."""
_STEMS: Mapping[tuple[int, ...], str] = {(64, 3, 7, 7): "imagenet", (64, 3, 3, 3): "cifar"}


@dataclass(frozen=True)
class Trunk:
    """A ResNet, or a vision transformer, found in a file."""

    location: str
    """What stands before every name of it but the last stage's in a C4 detector (`state_dict/module.encoder_q.`)."""
    naming: str
    """One of `naming.NAMINGS` or of `vit_names.FAMILIES`."""
    names: Mapping[str, str] = field(repr=False)
    """Our name to the full name in the file."""
    architecture: Architecture | ViT | None
    """With the usual values of what tensors do not tell (stride's place, heads); None where there is a `problem`."""
    problem: str = ""
    """Why it is not a whole trunk of a known architecture."""

    @property
    def place(self) -> str:
        """The location without wrappers (`module.` of DataParallel, `_orig_mod.` of torch.compile)."""
        return place(self.location)


def place(name: str) -> str:
    """`name` without wrapping modules and the last dot."""
    container, slash, dotted = name.rpartition("/")
    return container + slash + ".".join(part for part in dotted.split(".") if part and part not in _WRAPPERS)


def find_trunks(tensors: Mapping[str, Tensor]) -> list[Trunk]:
    """Every trunk in `tensors`, whole ones first, then those with a problem."""
    found = []
    for naming, rename in NAMINGS.items():
        anchor = rename(_ANCHOR)
        for name in tensors:
            location = name.removesuffix(anchor)
            if location != name and (not location or location[-1] in "./"):
                found.append(_trunk(tensors, location, naming))
    whole = [trunk for trunk in found if not trunk.problem]
    places = {trunk.location for trunk in whole}
    return whole + [trunk for trunk in found if trunk.problem and trunk.location not in places]


def _trunk(tensors: Mapping[str, Tensor], location: str, naming: str) -> Trunk:
    names, strange = _names_at(tensors, location, naming)
    if not any(key.startswith("layer4.") for key in names):
        names |= _last_stage(tensors, location, naming)
    architecture, problem = _identify({key: tensors[name] for key, name in names.items()}, naming)
    if strange and not problem:
        problem = f"it also has {strange[0]}, which a plain ResNet has not"
    return Trunk(location, naming, names, None if problem else architecture, problem)


def _names_at(tensors: Mapping[str, Tensor], location: str, naming: str) -> tuple[dict[str, str], list[str]]:
    """The trunk's tensors at `location` by our names, and those that lie inside its modules and are none of them."""
    table = canonical_names(naming)
    heads = {_HEAD.split(foreign)[0] for foreign in table}
    names, strange = {}, []
    for name in tensors:
        foreign = name[len(location) :]
        if not name.startswith(location) or "/" in foreign or _LEFTOVER.fullmatch(foreign):
            continue
        if foreign in table:
            names[table[foreign]] = name
        elif _HEAD.split(foreign)[0] in heads:
            strange.append(name)
    return names, strange


def _last_stage(tensors: Mapping[str, Tensor], location: str, naming: str) -> dict[str, str]:
    """The last stage of a C4 detector, which is its head's (`roi_heads.res5`, `roi_head.shared_head.layer4`)."""
    container = location.rpartition("/")[0]
    anchor = NAMINGS[naming]("layer4.0.conv1.weight")
    for name in tensors:
        at = name.removesuffix(anchor)
        if at != name and at.rpartition("/")[0] == container and place(at).rpartition("/")[2] in _LAST_STAGE:
            table = canonical_names(naming)
            return {key: at + foreign for foreign, key in table.items() if at + foreign in tensors}
    return {}


def _identify(tensors: Mapping[str, Tensor], naming: str) -> tuple[Architecture | None, str]:
    """The architecture that has exactly these names and shapes, or what is wrong."""
    if not any(key.startswith("layer4.") for key in tensors):
        return None, "its last stage (layer4) is missing"
    if "conv1.0.weight" in tensors:
        stem = "deep"
    elif "conv1.weight" not in tensors:
        return None, "its first convolution is missing"
    elif (stem := _STEMS.get(tuple(tensors["conv1.weight"].shape), "")) == "":
        return None, f"its first convolution is {tuple(tensors['conv1.weight'].shape)}, not 7x7 or 3x3 to 64 channels"
    folded = naming == "caffe2" and "bn1.running_mean" not in tensors
    nearest: tuple[int, str] = (len(tensors) * 2, "it resembles no known ResNet")
    for name in ARCHS:
        architecture = Architecture(name, stem)  # type: ignore[arg-type]
        wrong = differences(expected(architecture), tensors, COUNTER if not folded else BUFFERS)
        if not wrong:
            return architecture, ""
        nearest = min(nearest, (len(wrong), f"{wrong[0]} (nearest: {name}, {len(wrong)} tensors differ)"))
    return None, nearest[1]


def differences(
    shapes: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], may_lack: tuple[str, ...]
) -> list[str]:
    """What keeps `tensors` from having exactly these names and `shapes`; names that end in `may_lack` may be absent."""
    wrong = [f"{key} is not of it" for key in tensors if key not in shapes]
    wrong += [f"{key} is missing" for key in shapes if key not in tensors and not key.endswith(may_lack)]
    wrong += [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(shapes[key])}"
        for key in tensors
        if key in shapes and tensors[key].shape != shapes[key] and not key.endswith(COUNTER)
    ]
    return wrong


@cache
def expected(architecture: Architecture | ViT) -> dict[str, torch.Size]:
    """The names and shapes of a trunk's tensors."""
    with torch.device("meta"):
        return {key: tensor.shape for key, tensor in architecture.build().state_dict().items()}
