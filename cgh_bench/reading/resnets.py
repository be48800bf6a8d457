"""Finding the ResNets among the tensors of a file, by structure alone."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cgh_bench.backbones.resnet import ARCHS, STAGES, ResNet
from cgh_bench.backbones.resnet_names import BUFFERS, COUNTER, NAMINGS, canonical_names
from cgh_bench.checkpoint import COUNTERS
from cgh_bench.core.errors import UserError
from cgh_bench.reading.candidate import (
    ANOTHER,
    Candidate,
    activation,
    as_counter,
    as_float32,
    below,
    differences,
    place,
)
from cgh_bench.reading.weights_file import WeightsFile

_ANCHOR = "layer1.0.conv1.weight"
_LAST_STAGE = {"roi_heads", "roi_head.shared_head", "shared_head"}
_HEAD = re.compile(r"[._]")
_LEFTOVER = re.compile(r".*_momentum|stem\.(?:fc|projection_head|prototypes)\..*")
"""What converters leave inside a network by mistake, and Caffe2's optimiser."""
_BLUR = re.compile("BlurPool|AvgPool2dAA|AntiAlias")
_STEMS: Mapping[tuple[int, ...], str] = {(64, 3, 7, 7): "imagenet", (64, 3, 3, 3): "cifar"}


@dataclass(frozen=True)
class FoundResNet(Candidate):
    """A ResNet found in a file."""

    architecture: ResNet | None

    def weights(self, file: WeightsFile) -> dict[str, Tensor]:
        """See `Candidate`.

        Absent batch counters are 0, but for those that we wrote beside. Where Caffe2 has folded the statistics into
        scale and offset they are those of an identity: mean 0, variance 1 - eps.
        """
        assert self.architecture is not None
        weights = {}
        for key, shape in self.architecture.shapes.items():
            if key.endswith(COUNTER):
                there = file.tensors.get(self.names.get(key, ""))
                weights[key] = as_counter(key, file.facts.get(f"{COUNTERS}/{key}", 0) if there is None else there)
            elif key in self.names:
                weights[key] = as_float32(key, file.tensors[self.names[key]]).reshape(shape)
                if weights[key].untyped_storage().nbytes() > weights[key].nbytes:
                    weights[key] = weights[key].clone()  # a part of a larger tensor, which would stay in memory
            else:
                weights[key] = torch.zeros(shape) if key.endswith("mean") else torch.ones(shape) - 1e-5
        return weights

    def attributes(self, file: WeightsFile) -> Iterator[tuple[str, Any]]:
        """See `Candidate`."""
        inside = [said["class"] for name, said in file.modules.items() if name.startswith(self.location)]
        if strange := next(filter(_BLUR.match, inside), ""):
            raise UserError(
                f"{file.path}: it has modules {strange}, which a plain ResNet does not have; name it with --arch"
            )
        first = self.holder(file, "conv1.0.weight" if "conv1.0.weight" in self.names else "conv1.weight")
        if "stride" in first:
            yield "stem.stride", first["stride"][0]
            yield "stem.padding", first["padding"][0]
        if pool := self.module(file, "maxpool"):
            yield "stem.pool", pool["class"] == "MaxPool2d"
        if act := self.module(file, "relu") or self.module(file, "act1"):
            yield "activation", activation(act["class"])
        inner = "conv2" if "layer1.0.conv3.weight" in self.names else "conv1"
        blocks = [[self.holder(file, f"{stage}.{number}.{inner}.weight") for number in (0, 1)] for stage in STAGES]
        if all("dilation" in later for _, later in blocks):
            dilation = tuple(later["dilation"][0] for _, later in blocks)
            yield "dilation", dilation
            yield (
                "dilate_first",
                any(a["dilation"][0] == d > 1 for (a, _), d in zip(blocks, dilation, strict=True))
                and (blocks[-1][0]["dilation"][0] == dilation[-1]),
            )
        if inner == "conv2" and (strides := self.holder(file, "layer2.0.conv1.weight").get("stride")):
            yield "stride_in_1x1", strides[0] > 1


def find_resnets(tensors: Mapping[str, Tensor]) -> list[Candidate]:
    """Every ResNet in `tensors`, whole ones first, then those with a problem."""
    found: list[Candidate] = []
    names_below = below(tensors)
    for naming, rename in NAMINGS.items():
        anchor, last_stages = rename(_ANCHOR), _last_stages(tensors, naming)
        for name in tensors:
            location = name.removesuffix(anchor)
            if location != name and (not location or location[-1] in "./"):
                names, strange = _names_at(names_below(location), location, naming)
                if not any(key.startswith("layer4.") for key in names):
                    names |= last_stages.get(location.rpartition("/")[0], {})
                architecture, problem = _identify({key: tensors[each] for key, each in names.items()}, naming)
                if any(name.endswith(".stem.conv2.weight") for name in strange):
                    problem = _DEEPLAB
                elif strange and not problem:
                    problem = f"it also has {strange[0]}, which a plain ResNet does not have; {ANOTHER}"
                found.append(FoundResNet(location, naming, names, None if problem else architecture, problem))
    whole = [network for network in found if not network.problem]
    places = {network.location for network in whole}
    others = [network for network in found if network.problem and network.location not in places]
    return whole + sorted(
        others, key=lambda network: -len(network.names)
    )  # the problem under the likeliest names first


def _names_at(inside: list[str], location: str, naming: str) -> tuple[dict[str, str], list[str]]:
    """The network's tensors at `location` by our names, and those that lie inside its modules and are none of them."""
    table, heads = canonical_names(naming), _heads(naming)
    names, strange = {}, []
    for name in inside:
        foreign = name[len(location) :]
        if "/" in foreign or _LEFTOVER.fullmatch(foreign):
            continue
        if foreign in table:
            names[table[foreign]] = name
        elif _HEAD.split(foreign)[0] in heads:
            strange.append(name)
    return names, strange


@cache
def _heads(naming: str) -> frozenset[str]:
    """What the names of a network's modules begin with."""
    return frozenset(_HEAD.split(foreign)[0] for foreign in canonical_names(naming))


def _last_stages(tensors: Mapping[str, Tensor], naming: str) -> dict[str, dict[str, str]]:
    """The last stage of a C4 detector in each dictionary: `roi_heads.res5`, or `roi_head.shared_head.layer4`."""
    found: dict[str, dict[str, str]] = {}
    anchor = NAMINGS[naming]("layer4.0.conv1.weight")
    for name in tensors:
        at = name.removesuffix(anchor)
        container = at.rpartition("/")[0]
        if at != name and container not in found and place(at).rpartition("/")[2] in _LAST_STAGE:
            table = canonical_names(naming)
            found[container] = {key: at + foreign for foreign, key in table.items() if at + foreign in tensors}
    return found


_NO_RELU = (
    "it is lightly's ResNetGenerator in a Sequential, without the ReLU behind its first norm; build it so, and pass it "
    "to cgh_bench.wrap in Python"
)


_DEEPLAB = (
    "its stem is of three convolutions to 128 channels (detectron2's DeepLab); load it in detectron2, and pass it to "
    "cgh_bench.wrap in Python"
)


def _strange_stem(kernels: Tensor) -> str:
    width, channels, *sides = kernels.shape
    if channels != 3:
        return f"its first convolution takes {channels} channels; accepted: networks of RGB images"
    if width > 64 and width % 64 == 0:
        times = width // 64
        return (
            f"it is {times} times as wide as usual (SwAV's and VICReg's resnet50w{times}); build it with its own code, "
            "and pass it to cgh_bench.wrap in Python"
        )
    return f"its first convolution is {'x'.join(map(str, sides))} to {width} channels; accepted: 7x7 or 3x3, to 64"


def _identify(tensors: Mapping[str, Tensor], naming: str) -> tuple[ResNet | None, str]:
    """The architecture that has exactly these names and shapes, or what is wrong."""
    if not any(key.startswith("layer4.") for key in tensors):
        return None, "its last stage (layer4) is missing"
    if "conv1.0.weight" in tensors:
        stem = "deep"
    elif "conv1.weight" not in tensors:
        return None, "its first convolution is missing"
    elif (stem := _STEMS.get(tuple(tensors["conv1.weight"].shape), "")) == "":
        return None, _strange_stem(tensors["conv1.weight"])
    folded = naming == "caffe2" and "bn1.running_mean" not in tensors
    nearest: tuple[int, str] = (len(tensors) * 2, "it resembles no known ResNet")
    for name in ARCHS:
        architecture = ResNet(name, stem)  # type: ignore[arg-type]
        wrong = differences(architecture.shapes, tensors, COUNTER if not folded else BUFFERS)
        if not wrong:
            return (None, _NO_RELU) if naming == "sequential_shortcut" else (architecture, "")
        nearest = min(nearest, (len(wrong), f"{wrong[0]} (nearest: {name}, {len(wrong)} tensors differ)"))
    return None, nearest[1]
