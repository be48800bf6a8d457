"""Reading a checkpoint of any origin: find its trunks, find its origin, take one trunk whole."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cgh_bench.backbones.resnet import Architecture
from cgh_bench.backbones.vit import ViT
from cgh_bench.checkpoint import Checkpoint, Origin, Preprocessing, from_description
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.files import sha256
from cgh_bench.reading.evidence import attention_of, preprocessing_of
from cgh_bench.reading.readers import LAYOUT, READERS, SPECIFIC, Reader
from cgh_bench.reading.trunks import Trunk, expected, find_trunks, place
from cgh_bench.reading.vit_names import find_vits, joined_weights
from cgh_bench.reading.weights_file import COUNTERS, WeightsFile, open_weights


@dataclass(frozen=True)
class Recognised:
    """A file whose origin is known."""

    source: str
    trunks: Mapping[str, Trunk] = field(repr=False)
    """By branch; the first is the default."""

    @property
    def implied(self) -> Preprocessing | None:
        """What that origin does to pixels, if it is known."""
        return READERS[self.source].preprocessing if self.source in READERS else None

    def choose(self, branch: str | None) -> str:
        """The branch of that name, or the default.

        Raises:
            UserError: the file has no such branch.
        """
        chosen = branch or next(iter(self.trunks))
        if chosen not in self.trunks:
            raise unknown(f"branch of {self.source}", chosen, self.trunks)
        return chosen


def read(path: Path, source: str | None = None, branch: str | None = None, trust_pickle: bool = False) -> Checkpoint:
    """Read the trunk of any checkpoint.

    Args:
        path: a file, or a Hugging Face folder.
        source: take it for this origin, whatever it looks like.
        branch: which of several trunks; the origin's default otherwise.
        trust_pickle: let the file run code.

    Raises:
        UserError: unreadable, no or several origins fit, no such branch, or the trunk is not whole and finite.
    """
    file = open_weights(path, trust_pickle)
    recognised = recognise(file, source, branch)
    return checkpoint_of(file, recognised, recognised.choose(branch))


def checkpoint_of(file: WeightsFile, recognised: Recognised, branch: str) -> Checkpoint:
    """The canonical checkpoint of one of the trunks that were recognised in `file`."""
    trunk = recognised.trunks[branch]
    if file.description:  # we wrote the file: whatever its layout, it is this checkpoint
        return from_description(file.description, canonical_weights(file, trunk))
    preprocessing, stride_in_1x1, _ = preprocessing_of(file, trunk, recognised.implied)
    weights = canonical_weights(file, trunk)
    _require_finite(file.path, weights)
    architecture = architecture_of(file, trunk, recognised.source, stride_in_1x1)
    used = set(trunk.names.values())
    origin = Origin(
        recognised.source,
        str(file.path),
        sha256(file.path) if file.path.is_file() else "",
        branch=branch,
        ignored=tuple(name for name in file.tensors if name not in used),
    )
    suffix = "" if branch == next(iter(recognised.trunks)) else f":{branch}"
    return Checkpoint(f"{file.path.name.split('.')[0]}{suffix}", architecture, weights, preprocessing, origin)


def architecture_of(file: WeightsFile, trunk: Trunk, source: str, stride_in_1x1: bool) -> Architecture | ViT:
    """The trunk's architecture with what its tensors do not tell."""
    assert trunk.architecture is not None
    if isinstance(trunk.architecture, ViT):
        return attention_of(file, trunk.architecture, trunk.naming, source)
    return dataclasses.replace(trunk.architecture, stride_in_1x1=stride_in_1x1)


def canonical_weights(file: WeightsFile, trunk: Trunk) -> dict[str, Tensor]:
    """The trunk's tensors under our names, in our order, as float32.

    Absent batch counters are 0, but for those that we wrote beside. Where Caffe2 has folded the statistics into scale
    and offset they are those of an identity: mean 0, variance 1 - eps.
    """
    assert trunk.architecture is not None
    if isinstance(trunk.architecture, ViT):
        rounded = {name: _float32(name, file.tensors[name]) for name in trunk.names.values()}
        return joined_weights(rounded, trunk)
    weights = {}
    for key, shape in expected(trunk.architecture).items():
        if key in trunk.names:
            tensor = file.tensors[trunk.names[key]]
            weights[key] = (tensor if key.endswith("num_batches_tracked") else _float32(key, tensor)).reshape(shape)
            if weights[key].untyped_storage().nbytes() > weights[key].nbytes:
                weights[key] = weights[key].clone()  # a part of a larger tensor, which would stay in memory
        elif key.endswith("num_batches_tracked"):
            weights[key] = torch.tensor(file.facts.get(f"{COUNTERS}/{key}", 0), dtype=torch.int64)
        else:
            weights[key] = torch.zeros(shape) if key.endswith("mean") else torch.ones(shape) - 1e-5
    return weights


def _float32(key: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.layout != torch.strided:
        raise UserError(f"{key} is {tensor.dtype}, {tensor.layout}; accepted: dense floating point, not quantised")
    rounded = tensor.to(torch.float32)
    if tensor.dtype == torch.float64 and not torch.equal(rounded.double(), tensor):
        raise UserError(f"{key} is float64, and float32 would round it; save the model after .float()")
    return rounded


def _require_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    broken = [key for key, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(f"{path}: {broken[0]} and {len(broken) - 1} more hold NaN or infinity; the training diverged")


def recognise(file: WeightsFile, source: str | None = None, branch: str | None = None) -> Recognised:
    """Find the one origin that fits.

    Raises:
        UserError: none or several do; what was tried, and why each failed.
    """
    if source is not None and source not in READERS:
        raise unknown("source", source, READERS)
    trunks = [*find_trunks(file.tensors), *find_vits(file.tensors)]
    whole = [trunk for trunk in trunks if not trunk.problem]
    if not whole:
        raise _nothing_usable(file, trunks)
    names = "\n".join(place(name) for name in (*file.tensors, *file.facts))
    if source is not None:
        found = _branches(READERS[source], whole)
        if isinstance(found, str):
            raise UserError(f"{file.path} cannot be read as {source}: {found}; without --source it is guessed")
        return Recognised(source, found)
    reasons = {}
    for rank in (SPECIFIC, LAYOUT):
        fitting = {}
        for name, reader in READERS.items():
            if reader.rank == rank:
                found = _fit(reader, whole, names)
                if isinstance(found, str):
                    reasons[name] = found
                else:
                    fitting[name] = found
        if len(fitting) > 1:
            raise UserError(f"{file.path} could be of {' or '.join(fitting)}; choose with --source")
        if fitting:
            return Recognised(*next(iter(fitting.items())))
    return _unknown_origin(file, whole, reasons, branch)


def _fit(reader: Reader, trunks: list[Trunk], names: str) -> dict[str, Trunk] | str:
    """The reader's branches in the file, or why it is not the file's origin."""
    for mark in reader.marks:
        if not re.search(mark, names, re.MULTILINE):
            return f"no {mark}"
    for mark in reader.lacks:
        if re.search(mark, names, re.MULTILINE):
            return f"has {mark}"
    return _branches(reader, trunks)


def _branches(reader: Reader, trunks: list[Trunk]) -> dict[str, Trunk] | str:
    found = {}
    for branch, pattern in reader.branches.items():
        at = [trunk for trunk in trunks if trunk.naming in reader.namings and re.fullmatch(pattern, trunk.place)]
        if len({trunk.location for trunk in at}) > 1:
            return f"several trunks for the branch {branch}: {', '.join(trunk.location for trunk in at)}"
        if at:
            found[branch] = at[0]
    return found or f"no trunk at {' or '.join(reader.branches.values())}"


def _unknown_origin(
    file: WeightsFile, trunks: list[Trunk], reasons: Mapping[str, str], branch: str | None
) -> Recognised:
    """A file that no rule knows is read all the same if it holds one trunk only, or the caller chooses one."""
    distinct: dict[str, Trunk] = {}
    for trunk in trunks:
        if not any(_same(file.tensors, trunk, other) for other in distinct.values()):
            distinct[trunk.place or "model"] = trunk
    if branch in distinct:
        return Recognised("unknown", {branch: distinct[branch]})
    if len(distinct) == 1:
        return Recognised("unknown", distinct)
    tried = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise UserError(
        f"{file.path} holds {len(distinct)} different trunks, at {', '.join(distinct)}, and no origin fits; "
        f"choose one with --branch, or the origin with --source ({tried})"
    )


def _same(tensors: Mapping[str, Tensor], one: Trunk, other: Trunk) -> bool:
    return one.names.keys() == other.names.keys() and all(
        torch.equal(tensors[one.names[key]], tensors[other.names[key]]) for key in one.names
    )


def _nothing_usable(file: WeightsFile, trunks: list[Trunk]) -> UserError:
    if trunks:
        where = trunks[0].location or "its top level"
        return UserError(f"{file.path}: the network at {where} cannot be used: {trunks[0].problem}")
    some = ", ".join(list(file.tensors)[:3])
    holds = f"{len(file.tensors)} tensors ({some}, …)" if some else "no tensors"
    return UserError(
        f"{file.path} holds {holds} and no ResNet or ViT under any known names "
        f"(tried: {', '.join(READERS)}); name a file with the model's weights"
    )
