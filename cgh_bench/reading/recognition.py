"""Reading a checkpoint of any origin: find its networks, find its origin, take one network whole."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from cgh_bench import backbones
from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.timm import Timm
from cgh_bench.backbones.transformers import Transformers
from cgh_bench.checkpoint import Checkpoint, Origin, architecture_of, from_description, require_finite
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.files import sha256
from cgh_bench.reading.candidate import Candidate, is_dense, place
from cgh_bench.reading.evidence import adjusted, settle
from cgh_bench.reading.names import stem
from cgh_bench.reading.readers import LAYOUT, READERS, SPECIFIC, Reader
from cgh_bench.reading.resnets import find_resnets
from cgh_bench.reading.timms import find_timm, identified_architecture, is_the_same, stated_architecture
from cgh_bench.reading.transformers import find_transformers
from cgh_bench.reading.vits import find_vits, pooled_by_mean
from cgh_bench.reading.weights_file import WeightsFile, open_weights

FINDERS = (find_resnets, find_vits)
"""These know their networks by the tensors alone."""
NAMED: Mapping[type[Architecture], Callable[[WeightsFile, Any], list[Candidate]]] = {
    Timm: find_timm,
    Transformers: find_transformers,
}
"""These look for one network, whose architecture is known."""


class Choices(TypedDict, total=False):
    """What a reader is told of a checkpoint that does not say it, or that holds several networks."""

    source: str | None
    """The origin that it is taken for, whatever it looks like (`cgh-bench list sources`)."""
    branch: str | None
    """Which network of a file that has several (student, teacher, …); the origin's default otherwise."""
    arch: str | None
    """The architecture, by timm's name."""
    settings: Sequence[str]
    """`NAME=VALUE` of properties that no tensor tells (`stem.padding=2`)."""
    trust_pickle: bool
    """Whether a pickled file may run the code that it names."""
    trust_code: bool
    """Whether the code of a `hub:` repository may run."""


@dataclass(frozen=True)
class Recognised:
    """A file whose origin is known."""

    source: str
    networks: Mapping[str, Candidate] = field(repr=False)
    """The network of each branch; the first is the default."""

    def choose(self, branch: str | None) -> str:
        """The branch of that name, or the default.

        Raises:
            UserError: the file has no such branch.
        """
        chosen = branch or next(iter(self.networks))
        if chosen not in self.networks:
            raise unknown(f"branch of {self.source}", chosen, self.networks)
        return chosen


def read(path: Path, may_assume: bool = False, **choices: Unpack[Choices]) -> Checkpoint:
    """The network of any checkpoint.

    Args:
        path: a file, or a Hugging Face folder.
        may_assume: see `evidence.settle`.
        **choices: see `Choices`.

    Raises:
        UserError: unreadable, no or several origins fit, no such branch, or the network is not whole and finite.
    """
    return read_opened(open_weights(path, choices.get("trust_pickle", False)), may_assume, **choices)


def read_opened(file: WeightsFile, may_assume: bool = False, **choices: Unpack[Choices]) -> Checkpoint:
    """See `read`; the file is open."""
    branch = choices.get("branch")
    recognised = recognise(file, choices.get("source"), branch, choices.get("arch"))
    return checkpoint_of(file, recognised, recognised.choose(branch), choices.get("settings", ()), may_assume)


def checkpoint_of(
    file: WeightsFile, recognised: Recognised, branch: str, settings: Sequence[str] = (), may_assume: bool = False
) -> Checkpoint:
    """The canonical checkpoint of one of the networks that were recognised in `file`."""
    network = recognised.networks[branch]
    if file.description:  # we wrote the file: whatever its layout, it is this checkpoint
        return adjusted(from_description(file.description, _weights(file, network)), settings)
    architecture, preprocessing, properties = settle(file, network, recognised.source, settings, may_assume)
    weights = _weights(file, network)
    require_finite(str(file.path), weights)
    used = set(network.names.values())
    origin = Origin(
        recognised.source,
        str(file.path),
        sha256(file.path) if file.path.is_file() else "",
        branch=branch,
        ignored=tuple(name for name in file.tensors if name not in used),
        properties=properties,
        proof=READERS[recognised.source].proof if recognised.source in READERS else "",
    )
    suffix = "" if branch == next(iter(recognised.networks)) else f":{branch}"
    return Checkpoint(f"{stem(file.path)}{suffix}", architecture, weights, preprocessing, origin)


def _weights(file: WeightsFile, network: Candidate) -> dict[str, Tensor]:
    try:
        return network.weights(file)
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from None


def recognise(
    file: WeightsFile, source: str | None = None, branch: str | None = None, arch: str | None = None
) -> Recognised:
    """Find the one origin that fits.

    Raises:
        UserError: none or several do; what was tried, and why each failed.
    """
    if source is not None and source not in READERS:
        raise unknown("source", source, READERS)
    networks = _networks(file, arch)
    whole = [network for network in networks if not network.problem]
    if not whole:
        raise _nothing_usable(file, networks)
    names = "\n".join(place(name) for name in (*file.tensors, *file.facts))
    if source is not None:
        found = _branches(READERS[source], whole)
        if isinstance(found, str):
            raise UserError(f"{file.path} is not a valid {source} checkpoint: {found}; leave out --source to guess")
        return Recognised(source, found | _distinct(file, whole, found))
    for rank in (SPECIFIC, LAYOUT):
        fits = {name: _fit(reader, whole, names) for name, reader in READERS.items() if reader.rank == rank}
        fitting = {name: found for name, found in fits.items() if not isinstance(found, str)}
        if len(fitting) > 1:
            raise UserError(f"{file.path} matches several origins ({', '.join(fitting)}); choose one with --source")
        if fitting:
            origin, branches = next(iter(fitting.items()))
            return Recognised(origin, branches | _distinct(file, whole, branches))
    return _unknown_origin(file, whole, branch)


def _networks(file: WeightsFile, arch: str | None) -> list[Candidate]:
    """Every network in `file`; those of timm are found if the file or `arch` names them.

    Raises:
        UserError: `arch` is not known, or the file's networks are of other architectures.
    """
    name = arch.split(".")[0] if arch else ""  # timm writes the tag of the weights behind
    if arch or file.description:
        architecture = backbones.named(name) if arch else architecture_of(file.description)
        if find := NAMED.get(type(architecture)):
            return _stated(find(file, architecture), f"--arch {arch}" if arch else "")
    return _by_tensors(file, arch, name)


def _by_tensors(file: WeightsFile, arch: str | None, name: str) -> list[Candidate]:
    """The networks that tensors tell, or those that the file names where they compute something else."""
    found = [network for find in FINDERS for network in find(file.tensors)]
    if arch is not None:
        fitting = [network for network in found if network.architecture is None or network.architecture.name == name]
        if found and not fitting:
            raise UserError(
                f"{file.path} holds {found[0].architecture} at {found[0].place or 'its top level'}, not {arch}"
            )
        return _stated(fitting, f"--arch {arch}")
    if _is_a_resnet_of_its_own(file):
        return find_transformers(file)
    stated = stated_architecture(file)
    if stated is None:
        if any(not network.problem for network in found):
            return found
        others = find_transformers(file)
        if not others and (identified := identified_architecture(file) or pooled_by_mean(file.tensors)):
            others = find_timm(file, identified)
        return [*others, *found]
    whole = [network for network in found if not network.problem]
    stated_by = f"the architecture that the file names, {stated.name}"
    if whole and all(is_the_same(network.architecture, stated) for network in whole if network.architecture):
        return _stated([replace(network, stated=stated) for network in whole], stated_by)
    of_timm = _stated(find_timm(file, stated), stated_by)
    return of_timm if any(not network.problem for network in of_timm) or not whole else found


def _stated(networks: list[Candidate], by: str) -> list[Candidate]:
    return [replace(network, stated_by=by) for network in networks]


def _is_a_resnet_of_its_own(file: WeightsFile) -> bool:
    """Whether it is transformers' ResNet with another activation (at the end of blocks only), or an early stride."""
    said = {key: file.facts.get(f"config/{key}") for key in ("model_type", "hidden_act", "downsample_in_first_stage")}
    is_unusual = said["hidden_act"] not in (None, "relu") or said["downsample_in_first_stage"] is True
    return said["model_type"] == "resnet" and is_unusual


def _fit(reader: Reader, networks: list[Candidate], names: str) -> dict[str, Candidate] | str:
    """The reader's branches in the file, or why it is not the file's origin."""
    for mark in reader.marks:
        if not re.search(mark, names, re.MULTILINE):
            return f"no {mark}"
    for mark in reader.lacks:
        if re.search(mark, names, re.MULTILINE):
            return f"has {mark}"
    return _branches(reader, networks)


def _branches(reader: Reader, networks: list[Candidate]) -> dict[str, Candidate] | str:
    branches = {}
    for branch, pattern in reader.branches.items():
        at = [
            network for network in networks if network.naming in reader.namings and re.fullmatch(pattern, network.place)
        ]
        if len({network.location for network in at}) > 1:
            return f"several networks for the branch {branch}: {', '.join(network.location for network in at)}"
        if at:
            branches[branch] = at[0]
    return branches or f"no network at {' or '.join(reader.branches.values())}"


def _unknown_origin(file: WeightsFile, networks: list[Candidate], branch: str | None) -> Recognised:
    """A file that no rule knows is read all the same if it holds one network only, or the caller chooses one."""
    distinct = _distinct(file, networks, {})
    if branch in distinct:
        return Recognised("unknown", {branch: distinct[branch]})
    if len(distinct) == 1:
        return Recognised("unknown", distinct)
    raise UserError(
        f"{file.path} holds {len(distinct)} different networks and matches no known origin; choose one "
        f"with --branch: {', '.join(distinct)}"
    )


def _distinct(file: WeightsFile, networks: list[Candidate], known: Mapping[str, Candidate]) -> dict[str, Candidate]:
    """The networks with other weights than those of `known` and than each other (an average beside it), by place."""
    distinct: dict[str, Candidate] = {}
    for network in networks:
        at_known = any(network.location == other.location for other in known.values())
        others = (*known.values(), *distinct.values())
        if not at_known and not any(_same(file.tensors, network, other) for other in others):
            distinct[network.place.rstrip("/") or "model"] = network
    return distinct


def _same(tensors: Mapping[str, Tensor], one: Candidate, other: Candidate) -> bool:
    if one.names.keys() != other.names.keys():
        return False
    pairs = [(tensors[one.names[key]], tensors[other.names[key]]) for key in one.names]
    return all(is_dense(a) and is_dense(b) and torch.equal(a, b) for a, b in pairs)


def _nothing_usable(file: WeightsFile, networks: list[Candidate]) -> UserError:
    if networks:
        where = networks[0].location or "its top level"
        return UserError(f"{file.path}: the network at {where} cannot be used: {networks[0].problem}")
    if not file.tensors:
        return UserError(f"{file.path} holds no tensors; give a file that holds a network's weights")
    holds = f"{len(file.tensors)} tensors ({', '.join(list(file.tensors)[:3])}, …)"
    for names, advice in _ADVICE.items():
        if any(re.search(names, name) for name in file.tensors):
            return UserError(f"{file.path} holds {holds}: {advice}")
    return UserError(
        f"{file.path} holds {holds} and no ResNet or ViT with known names; for other timm networks use --arch"
    )


_ADVICE = {
    r"(^|/)(momentum_buffer|exp_avg)$": "an optimiser's state, but no network's weights; save its state_dict(), too",
    r"(^|[./])_flat_param": "FSDP's flattened parameters; save whole ones, with StateDictType.FULL_STATE_DICT",
    r"Transformer/encoderblock_\d+/": "a network of JAX; give the file to "
    "timm.create_model(NAME, checkpoint_path=FILE), and save that model's state_dict()",
    r"(^|[./])(conv_proj\.weight|features\.\d+\.\d+\.|trunk_output\.)": "one of torchvision's networks that is no "
    "ResNet; build it with torchvision, load the file into it, and pass it to cgh_bench.wrap in Python",
}
"""What names of tensors tell of files that are not read, and what to do."""
