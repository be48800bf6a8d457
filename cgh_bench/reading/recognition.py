"""Reading a checkpoint of any origin: find its networks, find its origin, take one network whole."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from cgh_bench import backbones
from cgh_bench.backbones.timm import Timm
from cgh_bench.backbones.transformers import Transformers
from cgh_bench.checkpoint import Checkpoint, Origin, architecture_of, from_description, require_finite
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.files import sha256
from cgh_bench.reading.candidate import Candidate, is_dense, place
from cgh_bench.reading.evidence import adjusted, settle
from cgh_bench.reading.readers import LAYOUT, READERS, SPECIFIC, Reader
from cgh_bench.reading.resnets import find_resnets
from cgh_bench.reading.timms import find_timm, identified_architecture, is_the_same, stated_architecture
from cgh_bench.reading.transformers import find_transformers
from cgh_bench.reading.vits import find_vits
from cgh_bench.reading.weights_file import WeightsFile, open_weights

FINDERS = (find_resnets, find_vits)
"""These know their networks by the tensors alone; see `_networks` for the others."""


@dataclass(frozen=True)
class Recognised:
    """A file whose origin is known."""

    source: str
    networks: Mapping[str, Candidate] = field(repr=False)
    """By branch; the first is the default."""

    def choose(self, branch: str | None) -> str:
        """The branch of that name, or the default.

        Raises:
            UserError: the file has no such branch.
        """
        chosen = branch or next(iter(self.networks))
        if chosen not in self.networks:
            raise unknown(f"branch of {self.source}", chosen, self.networks)
        return chosen


def read(  # noqa: PLR0913, PLR0917 (as `loading.load`)
    path: Path,
    source: str | None = None,
    branch: str | None = None,
    trust_pickle: bool = False,
    arch: str | None = None,
    settings: Sequence[str] = (),
    may_assume: bool = False,
) -> Checkpoint:
    """Read the network of any checkpoint.

    Args:
        path: a file, or a Hugging Face folder.
        source: take it for this origin, whatever it looks like.
        branch: which of several networks; the origin's default otherwise.
        trust_pickle: let the file run code.
        arch: the network's architecture, where the file does not say it: any name of timm.
        settings: `NAME=VALUE` of properties that no tensor tells (`stem.padding=2`).
        may_assume: see `evidence.settle`.

    Raises:
        UserError: unreadable, no or several origins fit, no such branch, or the network is not whole and finite.
    """
    return read_opened(open_weights(path, trust_pickle), source, branch, arch, settings, may_assume)


def read_opened(
    file: WeightsFile,
    source: str | None = None,
    branch: str | None = None,
    arch: str | None = None,
    settings: Sequence[str] = (),
    may_assume: bool = False,
) -> Checkpoint:
    """The same of a file that is open."""
    recognised = recognise(file, source, branch, arch)
    return checkpoint_of(file, recognised, recognised.choose(branch), settings, may_assume)


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
    return Checkpoint(f"{file.path.name.split('.')[0]}{suffix}", architecture, weights, preprocessing, origin)


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
            raise UserError(f"{file.path} fits several origins ({', '.join(fitting)}); choose one with --source")
        if fitting:
            return Recognised(*next(iter(fitting.items())))
    return _unknown_origin(file, whole, reasons, branch)


def _networks(file: WeightsFile, arch: str | None) -> list[Candidate]:
    """Every network in `file`; those of timm are found if the file or `arch` names them.

    Raises:
        UserError: `arch` is not known, or the file's networks are of other architectures.
    """
    if arch is not None:
        name = arch.split(".")[0]  # timm writes the tag of the weights behind
        architecture = backbones.named(name)
        if isinstance(architecture, Timm):
            return find_timm(file, architecture)
    elif file.description:
        described = architecture_of(file.description)
        if isinstance(described, Timm):
            return find_timm(file, described)
        if isinstance(described, Transformers):
            return find_transformers(file, described)
    return _by_tensors(file, arch, name if arch else "")


def _by_tensors(file: WeightsFile, arch: str | None, name: str) -> list[Candidate]:
    """The networks that tensors tell, or those that the file names where they compute something else."""
    found = [network for find in FINDERS for network in find(file.tensors)]
    if arch is not None:
        fitting = [network for network in found if network.architecture is None or network.architecture.name == name]
        if found and not fitting:
            raise UserError(
                f"{file.path} holds {found[0].architecture} at {found[0].place or 'its top level'}, not {arch}"
            )
        return [replace(network, stated_by=f"--arch {arch}") for network in fitting]
    if file.facts.get("config/hidden_act", "relu") != "relu" and file.facts.get("config/model_type") == "resnet":
        return find_transformers(file)  # it has that activation at the end of blocks only
    stated = stated_architecture(file)
    if stated is None:
        if any(not network.problem for network in found):
            return found
        others = find_transformers(file)
        if not others and (identified := identified_architecture(file)):
            others = find_timm(file, identified)
        return [*others, *found]
    whole = [network for network in found if not network.problem]
    if whole and all(is_the_same(network.architecture, stated) for network in whole if network.architecture):
        stated_by = f"the architecture that the file names, {stated.name}"
        return [replace(network, stated=stated, stated_by=stated_by) for network in whole]
    of_timm = find_timm(file, stated)
    return of_timm if any(not network.problem for network in of_timm) or not whole else found


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


def _unknown_origin(
    file: WeightsFile, networks: list[Candidate], reasons: Mapping[str, str], branch: str | None
) -> Recognised:
    """A file that no rule knows is read all the same if it holds one network only, or the caller chooses one."""
    distinct: dict[str, Candidate] = {}
    for network in networks:
        if not any(_same(file.tensors, network, other) for other in distinct.values()):
            distinct[network.place or "model"] = network
    if branch in distinct:
        return Recognised("unknown", {branch: distinct[branch]})
    if len(distinct) == 1:
        return Recognised("unknown", distinct)
    tried = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise UserError(
        f"{file.path} holds {len(distinct)} different networks, at {', '.join(distinct)}, and no origin fits; "
        f"choose one with --branch, or the origin with --source ({tried})"
    )


def _same(tensors: Mapping[str, Tensor], one: Candidate, other: Candidate) -> bool:
    if one.names.keys() != other.names.keys():
        return False
    pairs = [(tensors[one.names[key]], tensors[other.names[key]]) for key in one.names]
    return all(is_dense(a) and is_dense(b) and torch.equal(a, b) for a, b in pairs)


def _nothing_usable(file: WeightsFile, networks: list[Candidate]) -> UserError:
    if networks:
        where = networks[0].location or "its top level"
        return UserError(f"{file.path}: the network at {where} cannot be used: {networks[0].problem}")
    some = ", ".join(list(file.tensors)[:3])
    holds = f"{len(file.tensors)} tensors ({some}, …)" if some else "no tensors"
    return UserError(
        f"{file.path} holds {holds} and no ResNet or ViT under known names; name another network of timm by --arch"
    )
