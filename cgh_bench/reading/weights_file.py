"""Opening a file or folder of weights, whatever its format: tensors by name, and the plain facts beside them."""

import itertools
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor, nn

from cgh_bench.checkpoint import DESCRIPTION, FORMAT
from cgh_bench.core import pickles
from cgh_bench.core.errors import UserError
from cgh_bench.core.saved import load_arrays

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The files of a Hugging Face folder that hold weights; those of a large one have an index (`….index.json`)."""
_DEPTH = 8
_LONGEST = 10_000
"""Values of a list that may hold tensors or settings."""
_WRAPPERS = re.compile(r"(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
"""What FSDP, activation checkpointing and torch.compile put into names, at any depth."""
_DCP = ".metadata"
"""The file by which a folder of torch.distributed.checkpoint is known."""
_MOST_FACTS = 10_000


@dataclass(frozen=True)
class WeightsFile:
    """What is in a file.

    A name is the path to the tensor: `/` after each dictionary, then the tensor's own dotted name
    (`state_dict/module.encoder_q.conv1.weight`).
    """

    path: Path
    kind: str
    """The format, in words."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    """On the CPU, in memory of their own."""
    facts: Mapping[str, Any] = field(repr=False)
    """Strings, numbers and lists of them by path (`meta/cfg`, `arch`)."""
    modules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """For a pickled network: the plain attributes of every module by its path, with its `class`."""

    def beside(self, name: str) -> Mapping[str, Any]:
        """The facts of the JSON or YAML file `name` in the same folder; none where it is absent or is neither."""
        path = self.path.parent / name
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
            return _flatten(document, path)[1]
        except (OSError, ValueError, yaml.YAMLError):
            return {}

    @property
    def description(self) -> str:
        """The checkpoint's description as JSON, if the file is one of ours; else empty."""
        ours = self.facts.get("checkpoint") if self.facts.get("format") == FORMAT else None
        found = self.facts.get(DESCRIPTION, ours)
        return found if isinstance(found, str) else ""


def open_weights(path: Path, trust_pickle: bool = False) -> WeightsFile:
    """Read `path`; with `trust_pickle`, let a pickle run what it says.

    Raises:
        UserError: no such file, empty, damaged, of no known format, or naming code that will not be run.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; expected a checkpoint file or a Hugging Face folder")
    if path.is_dir():
        return _open_folder(path)
    if path.name in WEIGHTS and _says_a_network(path.with_name("config.json")):
        return _open_folder(path.parent)
    return _open_file(path, trust_pickle)


def _open_file(path: Path, trust_pickle: bool = False) -> WeightsFile:
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); copy or download it again")
    kind, read = _format(path)
    if trust_pickle and read in (pickles.load_torch, pickles.load_numpy):
        read = pickles.load_trusted
    return WeightsFile(path, kind, *_flatten(read(path), path))


def _format(path: Path) -> tuple[str, Callable[[Path], Any]]:
    if path.suffix == ".distcp":
        raise _distributed(path.parent)
    if _is_npz(path):
        return "NumPy archive", _load_npz
    with path.open("rb") as file:
        head = file.read(512)
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and (header < path.stat().st_size or not head.startswith((b"PK", b"\x80"))):
        return "safetensors", _load_safetensors
    if pickles.is_torch(path):
        return "PyTorch (torch.save)", pickles.load_torch
    if head[:1] == b"\x80":
        return "NumPy pickle", pickles.load_numpy
    raise UserError(
        f"{path} is {_what_it_is(head)}; accepted: files of torch.save, safetensors, .npz, pickles of NumPy arrays"
    )


def _distributed(folder: Path) -> UserError:
    return UserError(
        f"{folder} is a distributed checkpoint; convert it to a single file: python -m "
        f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} whole.pth"
    )


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            return bool(names) and all(name.endswith(".npy") for name in names)
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def _load_npz(path: Path) -> dict[str, Any]:
    """The arrays by their names; of one that is compressed the size in memory is not known before."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError(f"{path} is compressed; write it with numpy.savez")
    try:
        return load_arrays(path)
    except ValueError as error:
        raise UserError(f"{path} is a damaged NumPy archive ({error}); copy it again") from None


def _what_it_is(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself (`git lfs pull` fetches it)"
    if head.lstrip()[:1] == b"<":
        return "a web page, probably a download that failed"
    if head.startswith(b"PK"):
        return "a zip archive that is cut off or damaged"
    if head[257:262] == b"ustar" or head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        return "a compressed archive; unpack it"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file (Keras?)"
    return "not a checkpoint"


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            return {**tensors, **(file.metadata() or {})}
    except (safetensors.SafetensorError, MemoryError, ValueError) as error:
        raise UserError(f"{path} is a damaged safetensors file ({error}); copy or download it again") from None


def _open_folder(folder: Path) -> WeightsFile:
    """A Hugging Face folder: the weights and their configuration."""
    parts = [_open_file(part) for part in _parts_of(folder)]
    facts = {name: fact for part in parts for name, fact in part.facts.items()}
    for name in ("config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            try:
                document = json.loads((folder / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise UserError(f"{folder / name} is not JSON ({error}); copy it again") from None
            if not isinstance(document, dict):
                raise UserError(f"{folder / name} holds a {type(document).__name__}, not an object; copy it again")
            facts |= _flatten({name.removesuffix(".json"): document}, folder / name)[1]
            facts |= {DESCRIPTION: document[DESCRIPTION]} if DESCRIPTION in document else {}
    tensors = {name: tensor for part in parts for name, tensor in part.tensors.items()}
    return WeightsFile(folder, f"Hugging Face folder, {parts[0].kind}", tensors, facts)


def _parts_of(folder: Path) -> list[Path]:
    """The files with the weights: one, or those that an index names."""
    for name in WEIGHTS:
        if (folder / name).exists():
            return [folder / name]
        if (index := folder / f"{name}.index.json").exists():
            parts = [folder / part for part in shards(index)]
            if absent := [part.name for part in parts if not part.exists()]:
                raise UserError(f"{folder} lacks {', '.join(absent)}, listed in {index.name}; copy it too")
            return parts
    if inside := next(folder.glob(f"**/{_DCP}"), None):
        raise _distributed(inside.parent)
    raise UserError(f"{folder} is a folder without {' or '.join(WEIGHTS)}; name the checkpoint file")


def shards(index: Path) -> list[str]:
    """The names of the files that a Hugging Face index (`…index.json`) spreads the weights over.

    Raises:
        UserError: it is not such an index.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is not an index of weights ({error!r}); copy it again") from None
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{index} lists no files, or files outside its folder")
    return names


def _says_a_network(config: Path) -> bool:
    """Whether `config` is the configuration of a network of transformers or timm."""
    try:
        document = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and bool({"model_type", "architecture"} & set(document))


Flat = tuple[dict[str, Tensor], dict[str, Any], dict[str, dict[str, Any]]]


def _flatten(document: Any, file: Path) -> Flat:
    """Tensors and facts by their path, and of pickled networks the modules; whatever is neither is left out.

    Raises:
        UserError: dictionaries that share dictionaries, or a tensor larger than the file, would fill the memory.
    """
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    modules: dict[str, dict[str, Any]] = {}
    settings: set[int] = set()
    visits = itertools.count()
    size = file.stat().st_size

    def visit(node: Any, path: str, depth: int) -> None:
        if next(visits) > pickles.MOST_ENTRIES:
            raise pickle.UnpicklingError("values within values without end")
        if isinstance(node, pickles.Placeholder | nn.Module):
            if id(node) in settings:  # settings may point to their parents
                return
            settings.add(id(node))
            start = f"{path}/" if path else ""
            modules.update((_WRAPPERS.sub("", f"{start}{name}.").rstrip("."), said) for name, said in _modules(node))
            node = _contents(node)
        if (tensor := _as_tensor(node)) is not None:
            if tensor.is_nested:  # of no shape
                return
            if tensor.layout == torch.strided and not tensor.is_meta and tensor.nbytes > size:
                raise pickle.UnpicklingError(f"{path} is larger than the file")
            tensors[_WRAPPERS.sub("", path)] = tensor
        elif _is_fact(node) and len(facts) < _MOST_FACTS:
            facts[path] = node
        metadata = getattr(node, "_metadata", None)
        if isinstance(metadata, Mapping) and isinstance(metadata.get(DESCRIPTION), str):
            facts[DESCRIPTION] = metadata[DESCRIPTION]
        for key, child in _children(node) if depth < _DEPTH else ():
            visit(child, f"{path}/{key}" if path else str(key), depth + 1)

    try:
        visit(document, "", 0)
    except pickle.UnpicklingError as error:
        raise pickles.refusal(file, [], error) from None
    return tensors, facts, modules


def _as_tensor(node: Any) -> Tensor | None:
    if isinstance(node, np.ndarray) and node.dtype.kind in "fiub":
        return torch.from_numpy(np.require(node, requirements=["C", "W"]))
    return node.detach() if isinstance(node, Tensor) else None


def _children(node: Any) -> Iterable[tuple[Any, Any]]:
    """What is in a dictionary, and in a list the tensors and dictionaries."""
    if isinstance(node, Mapping):
        return node.items()
    if isinstance(node, list | tuple) and len(node) <= _LONGEST:
        return ((at, child) for at, child in enumerate(node) if isinstance(child, Mapping | Tensor | np.ndarray))
    return ()


def _modules(node: pickles.Placeholder | nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """The plain attributes of every module in a pickled network, with its `class`; nothing for any other object."""
    if isinstance(node, nn.Module):
        found = [(name, type(each).__qualname__, vars(each)) for name, each in node.named_modules()]
    elif isinstance(node.state.get("_modules"), dict):
        found = [(name, each.CLASS, each.state) for name, each in node.modules()]
    else:
        return
    for name, kind, state in found:
        plain = {key: value for key, value in state.items() if _is_fact(value)}
        card = state.get("pretrained_cfg")
        facts = {f"pretrained_cfg/{key}": v for key, v in card.items() if _is_fact(v)} if isinstance(card, dict) else {}
        yield name, {**plain, **facts, "class": kind.rpartition(".")[2]}


def _contents(node: pickles.Placeholder | nn.Module) -> dict[str, Any]:
    """The state dict of a pickled module, or the attributes of any other object."""
    if isinstance(node, nn.Module):
        return node.state_dict()
    return dict(node.tensors()) or node.state


def _is_fact(node: Any) -> bool:
    if isinstance(node, list | tuple):
        return len(node) <= 16 and all(isinstance(item, str | int | float) for item in node)
    return isinstance(node, str | int | float)
