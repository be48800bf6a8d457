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
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from cgh_bench.errors import UserError

HARMLESS = {
    "addict": "settings",
    "argparse": "command-line settings",
    "box": "settings",
    "classy_vision": "training state of ClassyVision",
    "collections": "a container",
    "copyreg": "how plain objects are pickled",
    "copy_reg": "how plain objects are pickled",
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
    "pathlib": "a file path",
    "pytorch_lightning": "training state of Lightning",
    "typing": "a type",
    "vissl": "settings of VISSL",
    "yacs": "settings",
}
"""Packages whose classes a checkpoint may mention, and what they then are; their objects come back empty."""

DANGEROUS = re.compile(
    r"(__builtin__|_posixsubprocess|asyncio|bdb|builtins|code|commands|ctypes|functools|importlib|marshal|"
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


class Nothing:
    """Stands for an object that is not needed: takes any state and keeps none."""

    def __new__(cls, *_: object, **__: object) -> "Nothing":
        """Ignore the arguments of the class that it stands for."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> "Nothing":
        """What stands for a function or an enumeration can be called, to no effect."""
        return self

    def __hash__(self) -> int:
        return id(self)


def _empty_dict(*_: object) -> "collections.OrderedDict[Any, Any]":
    """Stands for `defaultdict(factory)`: the items follow in the pickle."""
    return collections.OrderedDict()


def _plain_object(*_: object) -> Nothing:
    """Stands for `copyreg._reconstructor(cls, base, state)`."""
    return Nothing()


def _stand_in(name: str) -> Any:
    """The harmless thing to build where the pickle names `name`, or None if it may not be named."""
    root, leaf = name.partition(".")[0], name.rpartition(".")[2]
    if root in ("builtins", "__builtin__"):
        return Nothing if _PLAIN_TYPES.fullmatch(leaf) else None
    if name == "_codecs.encode":
        return Nothing
    if root not in HARMLESS:
        return None
    if leaf == "defaultdict":
        return _empty_dict
    if leaf == "_reconstructor":
        return _plain_object
    return collections.OrderedDict if leaf in ("CfgNode", "Dict", "EasyDict") or leaf.endswith("Dict") else Nothing


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote, tensors on the CPU (memory-mapped from a zip archive, so: copy those that you keep).

    Raises:
        UserError: damaged, or it names something that is neither tensor nor harmless.
    """
    names = _names(path)
    stand_ins: list[Any] = [(stand_in, name) for name in names if (stand_in := _stand_in(name)) is not None]
    is_zip = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except UNREADABLE as error:
        blocked = [name for name in names if _stand_in(name) is None and not _torch_allows(name)]
        raise _refusal(path, blocked, error) from None


def load_numpy(path: Path) -> Any:
    """What `pickle.dump` wrote, if it holds nothing but NumPy arrays, numbers, strings and containers.

    Raises:
        UserError: damaged, or it names anything else.
    """
    try:
        with path.open("rb") as file:
            return _NumpyUnpickler(file, encoding="latin1").load()
    except _Blocked as blocked:
        raise _refusal(path, [str(blocked)], blocked) from None
    except UNREADABLE as error:
        raise _refusal(path, [], error) from None


def load_trusted(path: Path) -> Any:
    """The same with everything that the file says carried out; only for files of a trusted maker (`--trust-pickle`).

    Raises:
        UserError: damaged, or a module that it needs is not installed.
    """
    is_torch = zipfile.is_zipfile(path) or _is_legacy_torch(path)
    try:
        if is_torch:
            return torch.load(path, map_location="cpu", weights_only=False)
        with path.open("rb") as file:
            return pickle.load(file, encoding="latin1")
    except ModuleNotFoundError as error:
        raise UserError(f"{path} needs the Python module {error.name}: install it or add it to PYTHONPATH") from None
    except UNREADABLE as error:
        raise _refusal(path, [], error) from None


def is_torch(path: Path) -> bool:
    """Whether `torch.save` wrote it, in the zip format or the older one."""
    return zipfile.is_zipfile(path) or _is_legacy_torch(path)


def _is_legacy_torch(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_TORCH_MAGIC)) == _TORCH_MAGIC


def _names(path: Path) -> list[str]:
    """Every class or function that the file's pickle mentions, found without unpickling it."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return sorted({name for _ in range(4) for name in _mentioned(file)})
        with zipfile.ZipFile(path) as archive:
            entry = next((e for e in archive.infolist() if e.filename.endswith("/data.pkl")), None)
            _require_honest_archive(path, archive, entry)
            with archive.open(entry.filename if entry else "") as file:
                return sorted(set(_mentioned(io.BytesIO(file.read()))))
    except UNREADABLE as error:
        raise _refusal(path, [], error) from None


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
            yield str(argument).replace(" ", ".", 1)
        elif operation.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)


def _torch_allows(name: str) -> bool:
    return name.startswith("torch.") and not name.startswith("torch.nn.modules")


def _refusal(path: Path, blocked: list[str], error: BaseException) -> UserError:
    """One line for a file that cannot be read, naming what it would have run."""
    worst = sorted(blocked, key=lambda name: not DANGEROUS.fullmatch(name))[:3]
    if worst and DANGEROUS.fullmatch(worst[0]):
        return UserError(f"{path} would run {', '.join(worst)} when loaded: no checkpoint needs that; do not use it")
    if any(name.startswith("torch.nn.modules") or "odel" in name or "esnet" in name.lower() for name in worst):
        what = "a whole model object was pickled, not its state_dict()"
    elif worst:
        what = "neither a tensor nor a known setting"
    else:
        reason = re.sub(r"\s+", " ", str(error)).strip()[:160] or type(error).__name__
        return UserError(f"{path} is damaged or not a checkpoint ({reason}); copy or download it again")
    return UserError(
        f"{path} mentions {', '.join(worst)} ({what}); save a plain state_dict, "
        "or pass --trust-pickle if you trust who made the file"
    )


class _Blocked(pickle.UnpicklingError):
    """The pickle names something that is not allowed; the message is that name."""


class _NumpyUnpickler(pickle.Unpickler):
    """Builds arrays and plain values only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _NUMPY:
            return _NUMPY[module, name]
        stand_in = _stand_in(f"{module}.{name}")
        if stand_in is None:
            raise _Blocked(f"{module}.{name}")
        return stand_in

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError("it refers to data outside of the file")


def _new_array(subtype: object, shape: object, kind: object) -> "np.ndarray[Any, Any]":
    """NumPy's `_reconstruct` for the one use that `ndarray.__reduce__` makes of it: an empty array, filled later."""
    if subtype is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array of a kind that is not allowed")
    return np.ndarray((0,), np.uint8)


def _dtype(code: object, *_: object) -> "np.dtype[Any]":
    """A number's dtype; one of Python objects is refused."""
    found = np.dtype(code if isinstance(code, str) else "O")
    if found.hasobject:
        raise pickle.UnpicklingError("an array of Python objects")
    return found


def _scalar(kind: Any, data: Any) -> Any:
    return np.frombuffer(data if isinstance(data, bytes) else str(data).encode("latin1"), kind, 1)[0]


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_NUMPY: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _NUMPY[_module, "_reconstruct"] = _new_array
    _NUMPY[_module, "scalar"] = _scalar
