"""Reading pickled checkpoints without running anything that they say.

A pickle may name any function and have it called. Here only tensors, arrays, numbers, strings and containers are ever
built. What a training framework leaves beside them (logs, settings) is replaced by an empty stand-in: the real class is
neither imported nor called. Anything else is refused by name.
"""

import collections
import io
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cgh_bench.core.errors import UserError

HARMLESS = {
    "addict": "settings",
    "argparse": "command-line settings",
    "box": "settings",
    "classy_vision": "training state of ClassyVision",
    "collections": "a container",
    "copyreg": "how plain objects are pickled",
    "datetime": "a date",
    "detectron2": "settings of detectron2",
    "easydict": "settings",
    "enum": "an enumeration",
    "fvcore": "settings or statistics of fvcore",
    "hydra": "settings of Hydra",
    "lightning": "training state of Lightning",
    "lightning_fabric": "training state of Lightning",
    "mmcls": "a training log or settings of mmcls",
    "mmcv": "a training log or settings of mmcv",
    "mmdet": "a training log or settings of mmdetection",
    "mmengine": "a training log or settings of mmengine",
    "mmpretrain": "a training log or settings of mmpretrain",
    "mmseg": "a training log or settings of mmsegmentation",
    "ml_collections": "settings",
    "numpy": "a NumPy scalar or array",
    "omegaconf": "settings of OmegaConf",
    "lightly": "a model of lightly",
    "lightly_train": "a model of lightly-train",
    "pathlib": "a file path",
    "pytorch_lightning": "training state of Lightning",
    "timm": "a model of timm",
    "torch": "a module of PyTorch",
    "torchvision": "a model of torchvision",
    "transformers": "a model of transformers",
    "typing": "a type",
    "vissl": "settings of VISSL",
    "yacs": "settings",
}
"""Packages whose classes a checkpoint may mention, and what they then are; their objects come back empty."""

DANGEROUS = re.compile(
    r"(_posixsubprocess|asyncio|bdb|builtins|code|commands|ctypes|functools|importlib|marshal|"
    r"multiprocessing|nt|operator|os|pdb|pickle|pip|posix|pty|runpy|shutil|signal|site|socket|subprocess|sys|tempfile|"
    r"threading|timeit|types|urllib|webbrowser)\..*"
)
"""Modules that a checkpoint has no honest reason to call."""

_PLAIN_TYPES = re.compile(
    "bool|bytearray|bytes|complex|dict|float|frozenset|int|list|object|range|set|slice|str|tuple|type"
)
_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.serialization.MAGIC_NUMBER, pickled
_LARGEST_PICKLE = 1 << 28  # bytes of structure without tensors; an ImageNet training state has about a megabyte
UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""What unpickling a damaged file has been seen to raise."""


class Hollow:
    """Stands for an object of a class that is never imported: keeps the attributes that were pickled, and does nothing.

    Enough to find the tensors of a whole pickled model, and the settings of a training run.
    """

    def __new__(cls, *_: object, **__: object) -> "Hollow":
        """Ignore the arguments of the class that it stands for."""
        made = super().__new__(cls)
        made.state = {}
        return made

    def __init__(self, *_: object, **__: object) -> None:
        self.state: dict[Any, Any]

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """The entries of its state dict, if it was an `nn.Module`."""
        transient = self.state.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _items(self.state.get(kind)):
                if tensor is not None and name not in transient:
                    yield f"{prefix}{name}", tensor
        for name, module in _items(self.state.get("_modules")):
            if isinstance(module, Hollow):
                yield from module.tensors(f"{prefix}{name}.")


def _items(mapping: object) -> Iterable[tuple[Any, Any]]:
    return mapping.items() if isinstance(mapping, dict) else ()


def _empty_dict(*_: object) -> "collections.OrderedDict[Any, Any]":
    """Stands for `defaultdict(factory)`: the items follow in the pickle."""
    return collections.OrderedDict()


def _hollow(*_: object) -> Hollow:
    """Stands for a function; it returns nothing of use."""
    return Hollow()


_FUNCTIONS: dict[str, Any] = {
    "_codecs.encode": _hollow,
    "builtins.getattr": _hollow,  # how mmengine's HistoryBuffer names its methods
    "collections.defaultdict": _empty_dict,
    "copyreg._reconstructor": _hollow,
}


def stand_in(name: str) -> Any:
    """The harmless thing to build where the pickle names `name`, or None if it may not be named."""
    root, leaf = name.partition(".")[0], name.rpartition(".")[2]
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    if root == "builtins":
        return Hollow if _PLAIN_TYPES.fullmatch(leaf) else None
    if root not in HARMLESS:
        return None
    return collections.OrderedDict if leaf in ("CfgNode", "Dict", "EasyDict") or leaf.endswith("Dict") else Hollow


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote, tensors on the CPU.

    Raises:
        UserError: damaged, or it names something that is neither tensor nor harmless.
    """
    names = _names(path)
    stand_ins: list[Any] = [(instead, name) for name in names if (instead := stand_in(name)) is not None]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        blocked = [name for name in names if stand_in(name) is None]
        raise refusal(path, blocked, error) from None


def load_trusted(path: Path) -> Any:
    """The same with everything that the file says carried out; only for files of a trusted maker (`--trust-pickle`).

    Raises:
        UserError: damaged, or a module that it needs is not installed.
    """
    try:
        if is_torch(path):
            return torch.load(path, map_location="cpu", weights_only=False)
        with path.open("rb") as file:
            return pickle.load(file, encoding="latin1")
    except ModuleNotFoundError as error:
        raise UserError(f"{path} needs the Python module {error.name}: install it or add it to PYTHONPATH") from None
    except UNREADABLE as error:
        raise refusal(path, [], error) from None


def is_zip(path: Path) -> bool:
    """Whether it is a whole zip archive."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def is_torch(path: Path) -> bool:
    """Whether `torch.save` wrote it, in the zip format or the older one."""
    return is_zip(path) or _is_legacy_torch(path)


def _is_legacy_torch(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_TORCH_MAGIC)) == _TORCH_MAGIC


def _names(path: Path) -> list[str]:
    """Every class or function that the file's pickle mentions, found without unpickling it."""
    try:
        if not is_zip(path):
            with path.open("rb") as file:
                return sorted({name for _ in range(4) for name in _mentioned(file)})
        with zipfile.ZipFile(path) as archive:
            entry = next((e for e in archive.infolist() if e.filename.endswith("/data.pkl")), None)
            _require_honest_archive(path, archive, entry)
            with archive.open(entry.filename if entry else "") as file:
                return sorted(set(_mentioned(io.BytesIO(file.read()))))
    except UNREADABLE as error:
        raise refusal(path, [], error) from None


def _require_honest_archive(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo | None) -> None:
    names = archive.namelist()
    if any("/code/" in name for name in names):
        raise UserError(f"{path} is a TorchScript program, not a checkpoint; save its state_dict() with torch.save")
    if entry is None:
        raise UserError(
            f"{path} is a zip archive without a PyTorch checkpoint in it (no data.pkl); name the file inside"
        )
    if any(e.compress_type != zipfile.ZIP_STORED for e in archive.infolist()) or entry.file_size > _LARGEST_PICKLE:
        raise UserError(f"{path} is not as torch.save writes it (compressed or huge entries); save it again")


def _mentioned(file: BinaryIO) -> Iterator[str]:
    """The names in one pickle, which ends at its STOP; `file` is left behind it."""
    strings: list[str] = []
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "GLOBAL":
            name = str(argument).replace(" ", ".", 1)
            yield name.replace("__builtin__.", "builtins.").replace("copy_reg.", "copyreg.")  # Python 2's names
        elif operation.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)


def refusal(path: Path, blocked: list[str], error: BaseException) -> UserError:
    """One line for a file that cannot be read, naming what it would have run."""
    worst = [repr(name[:80])[1:-1] for name in sorted(blocked, key=lambda name: not DANGEROUS.fullmatch(name))[:3]]
    if worst and DANGEROUS.fullmatch(worst[0]):
        return UserError(f"{path} would run {', '.join(worst)} when loaded: no checkpoint needs that; do not use it")
    if worst:
        return UserError(
            f"{path} mentions {', '.join(worst)}, neither a tensor nor a known setting; save a plain state_dict, "
            "or pass --trust-pickle if you trust who made the file"
        )
    told = re.sub(r"\s+", " ", str(error)).rpartition("WeightsUnpickler error: ")[2]
    reason = repr(told.partition(". Please use")[0].strip()[:160])[1:-1] or type(error).__name__
    return UserError(f"{path} is damaged or not a checkpoint ({reason}); copy or download it again")
