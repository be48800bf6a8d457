"""A network found among the tensors of a file, whatever its family."""

import re
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.resnet_names import COUNTER
from cgh_bench.backbones.timm import Timm
from cgh_bench.core.errors import UserError
from cgh_bench.reading.weights_file import WeightsFile

_WRAPPER = "module"
"""What DataParallel puts before a name; see also `weights_file`."""
_CHUNK = re.compile(r"(?<=blocks\.)\d+\.(?=\d+\.(norm1|norm2|attn|mlp|ls1|ls2)\.)")
_ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "QuickGELU": "quick_gelu",
    "QuickGELUActivation": "quick_gelu",
    "GELUTanh": "gelu_tanh",
}
"""transformers' names and classes of modules to ours, where they differ."""
ANOTHER = "name timm's network by --arch if it is one, or pass the network to cgh_bench.wrap in Python"
"""What to do with a network of another kind."""


@dataclass(frozen=True)
class Candidate(ABC):
    """A network found in a file. A family's subclass knows how to take it out."""

    location: str
    """What precedes every name of it but the last stage's in a C4 detector (`state_dict/module.encoder_q.`)."""
    naming: str
    """How its tensors are named: one of `resnet_names.NAMINGS`, of `vit_names.FAMILIES`, or `timm_model`."""
    names: Mapping[str, str] = field(repr=False)
    """Our name to the full name in the file."""
    architecture: Architecture | None
    """With the usual values of what tensors do not tell (place of the stride, heads); None where there is a
    `problem`."""
    problem: str = ""
    """Why it is not a whole network of a known architecture."""
    stated: Timm | None = None
    """The network of timm that the file names, where it is this one."""
    stated_by: str = ""
    """What names the architecture, and with it all that tensors do not tell."""
    untrained: tuple[str, ...] = ()
    """Its tensors that the file does not have and that are as initialised."""

    @property
    def place(self) -> str:
        """The location without the wrapper `module.` of DataParallel."""
        return place(self.location)

    def has(self, name: str) -> bool:
        """Whether the property `name`, which no tensor tells, makes a difference to it."""
        return self.architecture is not None and name in self.architecture.untold

    def module(self, file: WeightsFile, name: str) -> Mapping[str, Any]:
        """What the pickled module `name` of it says of itself; empty where the file has no such module."""
        return file.modules.get(f"{self.location}{name}".rstrip("."), {})

    def holder(self, file: WeightsFile, key: str) -> Mapping[str, Any]:
        """What the module that holds the network's tensor `key` says of itself; see `module`."""
        return file.modules.get(self.names.get(key, "").rpartition(".")[0], {})

    def attributes(self, file: WeightsFile) -> Iterator[tuple[str, Any]]:
        """What its pickled modules say of what no tensor tells: properties of `Architecture.UNTOLD` with their values.

        Raises:
            UserError: they are not those of its architecture.
        """
        yield from ()

    @abstractmethod
    def weights(self, file: WeightsFile) -> dict[str, Tensor]:
        """Its tensors in `file` under our names, in our order, as float32."""


def activation(name: str) -> str:
    """One of `backbones.base.ACTIVATIONS` by the name of a class, or by transformers' name."""
    return _ACTIVATIONS.get(name, name)


def place(name: str) -> str:
    """`name` without wrapping modules and the last dot."""
    container, slash, dotted = name.rpartition("/")
    return container + slash + ".".join(part for part in dotted.split(".") if part and part != _WRAPPER)


def unchunked(names: Iterable[str]) -> dict[str, str]:
    """`names` without the chunks that DINOv2's training puts its blocks in (`blocks.0.7.norm1`), to the names as given.

    Source: facebookresearch/dinov2 (b8931f7) dinov2/models/vision_transformer.py, `BlockChunk`: blocks are numbered
    through. Where they are not (Twins has stages of blocks), nothing is left out.
    """
    given = list(names)
    found = {_CHUNK.sub("", name): name for name in given}
    return found if len(found) == len(given) else {name: name for name in given}


def below(tensors: Iterable[str]) -> Callable[[str], list[str]]:
    """What finds the names that begin with a location, in the file's order: a file may hold thousands of networks."""
    ordered, position = sorted(tensors), {name: number for number, name in enumerate(tensors)}

    def found(location: str) -> list[str]:
        start = bisect_left(ordered, location)
        stop = bisect_right(ordered, location, start, key=lambda name: name[: len(location)])
        return sorted(ordered[start:stop], key=position.__getitem__)

    return found


def differences(
    shapes: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], may_lack: tuple[str, ...]
) -> list[str]:
    """What keeps `tensors` from having exactly these names and `shapes`; names that end in `may_lack` may be absent."""
    wrong = [f"unexpected tensor {key}" for key in tensors if key not in shapes]
    wrong += [f"{key} is missing" for key in shapes if key not in tensors and not key.endswith(may_lack)]
    wrong += [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(shapes[key])}"
        for key in tensors
        if key in shapes and tensors[key].shape != shapes[key] and not key.endswith(COUNTER)
    ]
    return wrong


def is_dense(tensor: Tensor) -> bool:
    """Whether it has a value at every place: it is neither sparse nor of the device "meta"."""
    return tensor.layout == torch.strided and not tensor.is_meta


def as_float32(key: str, tensor: Tensor) -> Tensor:
    """`tensor` in float32.

    Raises:
        UserError: it is not dense floating point, has no values, or float32 would round it.
    """
    if not tensor.is_floating_point() or not is_dense(tensor):
        values = "without values" if tensor.is_meta else str(tensor.layout)
        raise UserError(f"{key} is {tensor.dtype}, {values}; accepted: dense floating point, not quantised")
    rounded = tensor.to(torch.float32)
    if tensor.dtype == torch.float64 and not torch.equal(rounded.double(), tensor):
        raise UserError(f"{key} is float64 and does not fit float32 exactly; save the model after .float()")
    return rounded


def as_counter(key: str, given: object) -> Tensor:
    """A batch counter () as int64; `given` is a whole number, or a tensor that holds just that.

    Raises:
        UserError: it is anything else.
    """
    if isinstance(given, Tensor) and is_dense(given) and given.numel() == 1:
        given = given.item()
    if not isinstance(given, int) or isinstance(given, bool):
        kind = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
        raise UserError(f"{key} is {kind}; expected a single integer, the number of batches")
    return torch.tensor(given)
