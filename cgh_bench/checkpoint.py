"""A checkpoint in canonical form: a backbone's architecture, weights and expected preprocessing.

Importing it loads no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import safetensors

from cgh_bench import backbones
from cgh_bench.backbones.base import Architecture
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import order_metadata, replacing
from cgh_bench.data.preprocessing import Preprocessing
from cgh_bench.data.transform import EvalTransform

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.networks.base import Backbone

FORMAT = "cgh-bench/1"
DESCRIPTION = "cgh_bench"
"""The key under which every file that we write holds the checkpoint's description as JSON."""
COUNTERS = "cgh_bench_counters"
"""The key of the batch counters, if the file's format has no place for them."""

Kind = Literal["stated", "implied", "assumed"]
"""Stated in or beside the file, or by the user; implied by the file's origin; assumed (the usual value)."""
Reach = Literal["origin", "convention", "assumed"]
"""Level of evidence: compared with the origin's own outputs; with the origin's code, in our tests; or neither."""


@dataclass(frozen=True)
class Property:
    """A property of a network or its images that tensors do not determine, and how it is known."""

    name: str
    """A property of the architecture (`stem.padding`) or of the preprocessing (`mean`)."""
    value: Any
    kind: Kind
    source: str
    """Where the value comes from: a place in the file, a file beside it, the origin's code, or an option."""


@dataclass(frozen=True)
class Origin:
    """Where the weights come from."""

    DERIVED: ClassVar[tuple[str, ...]] = ("reach",)

    source: str
    """The reader that recognised them (`cgh-bench list sources`), `random`, or `module` (a module in memory)."""
    path: str = ""
    """The file, or the name on a hub."""
    sha256: str = ""
    """The hash of the file, or (for a module in memory) of its source file."""
    branch: str = ""
    """Which of the file's networks was used (student, teacher, …)."""
    recipe: str = ""
    """The recipe that trained them, if it is one of ours."""
    recipe_fingerprint: str = ""
    """The fingerprint of all values of the recipe; empty in checkpoints written before it was recorded."""
    seed: int | None = None
    ignored: tuple[str, ...] = ()
    """Names of the tensors in the file that are not the network's (heads, queues, optimiser)."""
    revision: str = ""
    """The commit of the hub's repository."""
    licence: str = ""
    """The licence that the hub states."""
    subset: str = ""
    """How much of the published data they were trained on, if a subset was intended."""
    transform: EvalTransform | None = None
    """The hub's own resize and crop, if stated; used by `transform=hub`."""
    properties: tuple[Property, ...] = ()
    """Properties that tensors do not determine, and how they are known."""
    proof: str = ""
    """What the reader's rule is tested against: the origin's own code, with its version; empty if nothing."""
    reference: str = ""
    """The source of the origin's outputs that were compared: the hash of a reference file, or `memory`."""

    @property
    def reach(self) -> Reach:
        """The level of evidence; networks trained or initialised here count as `origin`."""
        if self.reference or self.source in ("pretrain", "random", "module"):
            return "origin"
        known = bool(self.properties) and all(each.kind != "assumed" for each in self.properties)
        return "convention" if known and self.proof else "assumed"


@dataclass(frozen=True)
class Checkpoint:
    """A backbone's weights with everything needed to use them correctly."""

    name: str
    """What results and tables call it: the stem of its file, or the name that it was loaded by."""
    architecture: Architecture
    weights: Mapping[str, Tensor] = field(repr=False)
    """Exactly the state dict of `architecture.build()`, on the CPU."""
    preprocessing: Preprocessing
    """What the network expects of pixels in [0, 1]."""
    origin: Origin

    def __post_init__(self) -> None:
        require_exact(self.name, self.architecture.skeleton.state_dict(), self.weights)

    @cached_property
    def id(self) -> str:
        """Sixteen hex digits of the content: names, types, shapes and bytes of the weights, and the preprocessing."""
        import torch

        digest = hashlib.sha256(f"({self.architecture.identity}, {self.preprocessing!r})".encode())
        for key in sorted(self.weights):
            tensor = self.weights[key].contiguous()
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def backbone(self, copy: bool = True) -> Backbone:
        """The network with these weights, in eval mode; see `Architecture.with_weights`."""
        return self.architecture.with_weights(self.weights, copy)


def random_checkpoint(arch: str, seed: int = 0) -> Checkpoint:
    """The control `random:ARCH`: untrained weights, initialised by the network's own library with `seed`."""
    import torch

    architecture = backbones.named(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = architecture.build().state_dict()
    return Checkpoint(f"random:{arch}", architecture, weights, Preprocessing(), Origin("random", seed=seed))


def describe(checkpoint: Checkpoint) -> str:
    """Everything except the weights, as JSON."""
    architecture = backbones.to_fields(checkpoint.architecture)
    rest = {name: dataclasses.asdict(getattr(checkpoint, name)) for name in ("preprocessing", "origin")}
    return json.dumps({"name": checkpoint.name, "architecture": architecture, **rest})


def from_description(description: str, weights: Mapping[str, Tensor]) -> Checkpoint:
    """The checkpoint that `describe` described.

    Raises:
        UserError: the description is damaged or of another version, or the weights are of another architecture.
    """
    rest = _parse(description)
    checkpoint = Checkpoint(rest["name"], rest["architecture"], weights, rest["preprocessing"], rest["origin"])
    require_finite(checkpoint.name, weights)
    return checkpoint


def architecture_of(description: str) -> Architecture:
    """The architecture in a description, which determines the expected weights.

    Raises:
        UserError: the description is damaged or of another version.
    """
    architecture: Architecture = _parse(description)["architecture"]
    return architecture


def _parse(description: str) -> dict[str, Any]:
    try:
        rest = json.loads(description, object_hook=_tuples)
        if not isinstance(rest["architecture"]["name"], str):
            raise TypeError("the architecture has no name")
        return {
            "name": str(rest["name"]),
            "architecture": backbones.from_fields(rest["architecture"]),
            "preprocessing": Preprocessing(**rest["preprocessing"]),
            "origin": _origin(dict(rest["origin"])),
        }
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"the description of the weights is damaged ({error!r}); convert them again") from None


def _origin(fields: Mapping[str, Any]) -> Origin:
    cut = fields.get("transform")
    properties = tuple(Property(**each) for each in fields.get("properties", ()))
    return Origin(**{**fields, "transform": EvalTransform(**cut) if cut else None, "properties": properties})


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write `checkpoint` to one safetensors file, with everything except the weights as JSON in the header."""
    import safetensors.torch

    metadata = {"format": FORMAT, "checkpoint": describe(checkpoint)}
    weights = {key: tensor.contiguous() for key, tensor in checkpoint.weights.items()}
    with replacing(path) as temporary:
        safetensors.torch.save_file(weights, temporary, metadata)
        order_metadata(temporary)


def load_canonical(path: Path) -> Checkpoint:
    """Read what `save` wrote, tensor for tensor.

    Raises:
        UserError: not a safetensors file, not in this format, or its tensors do not match its architecture.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); copy or write it again") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is not in the format {FORMAT}; use `cgh_bench.load`, which reads other formats")
    return from_description(metadata["checkpoint"], weights)


def _tuples(document: dict[str, Any]) -> dict[str, Any]:
    """The dataclasses above hold tuples where JSON has lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}


def require_exact(what: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse `given` unless it has exactly the names, shapes and types of `expected`.

    Raises:
        UserError: names the first missing, surplus and different tensors and counts the others.
    """
    missing = [key for key in expected if key not in given]
    surplus = [key for key in given if key not in expected]
    different = [
        f"{key} is {_kind(given[key])}, not {_kind(expected[key])}"
        for key in expected
        if key in given and _kind(given[key]) != _kind(expected[key])
    ]
    complaints = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for kind, names in (("missing", missing), ("unexpected", surplus), ("different", different))
        if names
    ]
    if complaints:
        raise UserError(f"{what}: of {len(expected)} tensors {'; '.join(complaints)}; all must match")


def require_finite(what: str, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that contain NaN or infinity.

    Raises:
        UserError: names the first such tensor and counts the others.
    """
    from cgh_bench.core.saved import is_finite

    broken = [key for key, tensor in weights.items() if not is_finite(tensor)]
    if broken:
        more = f" and {len(broken) - 1} more tensors" if len(broken) > 1 else ""
        raise UserError(f"{what}: NaN or infinity in {broken[0]}{more}; training diverged, use an earlier checkpoint")


def _kind(tensor: Tensor) -> str:
    import torch

    sparse = "" if tensor.layout == torch.strided else "sparse "
    return f"{sparse}{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
