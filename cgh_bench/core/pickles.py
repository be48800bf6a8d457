"""Reading pickled checkpoints without running anything that they say.

A pickle may name any function and have it called. Here only tensors, arrays, numbers, strings and containers are ever
built. Whatever else it names (a log, settings, a class of the user's) is replaced by an empty stand-in: the real one is
neither imported nor called. What could only be meant to run something is refused by name.
"""

import collections
import io
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from cgh_bench.core.errors import UserError
from cgh_bench.core.pickle_scan import scan

DANGEROUS = re.compile(
    r"(_posixsubprocess|asyncio|bdb|builtins|code|commands|ctypes|functools(?!\.partial$)|importlib|marshal|"
    r"multiprocessing|nt|operator|os|pdb|pickle|pip|posix|pty|runpy|shutil|signal|site|socket|subprocess|sys|tempfile|"
    r"threading|timeit|types|urllib|webbrowser)\..*"
)
"""Modules that a checkpoint has no honest reason to call."""

_SHARED = ("torch.distributed.tensor.", "torch.distributed._tensor.", "torch.distributed._shard.")
_PLAIN_TYPES = re.compile(
    "bool|bytearray|bytes|complex|dict|float|frozenset|int|list|object|range|set|slice|str|tuple|type"
)
_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.serialization.MAGIC_NUMBER, pickled
MOST_ENTRIES = 200_000
"""Modules or values in a checkpoint; the largest of training states have some ten thousand."""
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


class Placeholder:
    """Stands for an object of a class that is never imported: keeps the attributes that were pickled, and does nothing.

    Enough to find the tensors of a whole pickled model, and the settings of a training run.
    """

    CLASS: ClassVar[str] = ""
    """The name of the class that it stands for."""

    def __new__(cls, *_: object, **__: object) -> "Placeholder":
        """Ignore the arguments of the class that it stands for."""
        made = super().__new__(cls)
        made.state = {}
        return made

    def __init__(self, *_: object, **__: object) -> None:
        self.state: dict[Any, Any]

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """The entries of its state dict, if it was an `nn.Module`.

        Raises:
            UnpicklingError: modules that share modules, and are endless for it.
        """
        for name, module in self.modules():
            transient = module.state.get("_non_persistent_buffers_set", ())
            for kind in ("_parameters", "_buffers"):
                for part, tensor in _items(module.state.get(kind)):
                    if tensor is not None and part not in transient:
                        yield f"{name}.{part}" if name else part, tensor

    def modules(self) -> "Iterator[tuple[str, Placeholder]]":
        """The modules in it and itself, by name, if it was an `nn.Module`.

        Raises:
            UnpicklingError: modules that share modules, and are endless for it.
        """
        waiting = [("", self)]
        for _ in range(MOST_ENTRIES):
            if not waiting:
                return
            name, module = waiting.pop()
            yield name, module
            inner = [(f"{name}.{part}" if name else part, each) for part, each in _items(module.state.get("_modules"))]
            waiting += [(path, each) for path, each in reversed(inner) if isinstance(each, Placeholder)]
        raise pickle.UnpicklingError("modules within modules without end")


@cache
def _shell(name: str) -> type[Placeholder]:
    return type("Placeholder", (Placeholder,), {"CLASS": name})


def _items(mapping: object) -> Iterable[tuple[Any, Any]]:
    return mapping.items() if isinstance(mapping, dict) else ()


def _empty_dict(*_: object) -> "collections.OrderedDict[Any, Any]":
    """Stands for `defaultdict(factory)`: the items follow in the pickle."""
    return collections.OrderedDict()


def _placeholder(*_: object) -> Placeholder:
    """Stands for a function; it returns nothing of use."""
    return Placeholder()


_FUNCTIONS: dict[str, Any] = {
    "_codecs.encode": _placeholder,
    "builtins.getattr": _placeholder,  # how mmengine's HistoryBuffer names its methods
    "collections.defaultdict": _empty_dict,
    "copyreg._reconstructor": _placeholder,
}


def stand_in(name: str) -> Any:
    """The harmless thing to build where the pickle names `name`, or None for what could only run something."""
    root, leaf = name.partition(".")[0], name.rpartition(".")[2]
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    if root == "builtins":
        return Placeholder if _PLAIN_TYPES.fullmatch(leaf) else None
    if DANGEROUS.fullmatch(name):
        return None
    is_dict = root != "torch" and (leaf in ("CfgNode", "Dict", "EasyDict") or leaf.endswith("Dict"))
    return collections.OrderedDict if is_dict else _shell(name)


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote, tensors on the CPU.

    Raises:
        UserError: damaged, or it names something that could only run something.
    """
    names = _names(path)
    if any(name.startswith(_SHARED) for name in names):
        raise UserError(
            f"{path} holds sharded tensors (DTensor); save full tensors, for example with "
            "torch.distributed.checkpoint.state_dict.get_model_state_dict and full_state_dict=True"
        )
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
    """Every class or function that the file's pickles mention, found without unpickling them."""
    try:
        if not is_zip(path):
            with path.open("rb") as file:
                return sorted({name for _ in range(5) for name in scan(file, path.stat().st_size)})
        with zipfile.ZipFile(path) as archive:
            entry = next((e for e in archive.infolist() if e.filename.endswith("/data.pkl")), None)
            _require_honest_archive(path, archive, entry)
            with archive.open(entry.filename if entry else "") as file:
                return sorted(scan(io.BytesIO(file.read()), path.stat().st_size))
    except UserError:
        raise
    except UNREADABLE as error:
        raise refusal(path, [], error) from None


def _require_honest_archive(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo | None) -> None:
    names = archive.namelist()
    if any("/code/" in name for name in names):
        raise UserError(f"{path} is a TorchScript program, not a checkpoint; save its state_dict() with torch.save")
    if entry is None:
        raise UserError(f"{path} is a zip archive without a PyTorch checkpoint in it (no data.pkl); unpack it")
    if any(e.compress_type != zipfile.ZIP_STORED for e in archive.infolist()) or entry.file_size > _LARGEST_PICKLE:
        raise UserError(f"{path} was not written by torch.save (compressed or huge entries); save it again")


def refusal(path: Path, blocked: list[str], error: BaseException) -> UserError:
    """One line for a file that cannot be read, naming what it would have run."""
    if blocked:
        named = ", ".join(repr(name[:80])[1:-1] for name in sorted(blocked)[:3])
        return UserError(f"{path} would run {named} when loaded, which no checkpoint needs: do not use it")
    said = re.sub(r"\s+", " ", str(error)).rpartition("WeightsUnpickler error: ")[2]
    reason = repr(said.partition(". Please use")[0].strip()[:160])[1:-1] or type(error).__name__
    return UserError(f"{path} is damaged or not a checkpoint ({reason}); copy or download it again")


def load_numpy(path: Path) -> Any:
    """What `pickle.dump` wrote (Detectron, Caffe2, CIFAR), if it has only NumPy arrays, plain values and containers.

    Raises:
        UserError: damaged, or it names anything else.
    """
    return unpickle_numpy(path.read_bytes(), path)


def unpickle_numpy(content: bytes, path: Path) -> Any:
    """See `load_numpy`, here of the `content` of the file `path`."""
    try:
        scan(io.BytesIO(content), len(content))
        return _NumpyUnpickler(io.BytesIO(content), encoding="latin1").load()
    except _Blocked as blocked:
        raise refusal(path, [str(blocked)], blocked) from None
    except UNREADABLE as error:
        raise refusal(path, [], error) from None


class _Blocked(pickle.UnpicklingError):
    """The pickle names something that is not allowed; the message is that name."""


class _NumpyUnpickler(pickle.Unpickler):
    """Builds arrays and plain values only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _NUMPY:
            return _NUMPY[module, name]
        instead = stand_in(f"{module}.{name}")
        if instead is None:
            raise _Blocked(f"{module}.{name}")
        return instead

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError("it refers to data outside of the file")


def _new_array(subtype: object, shape: object, kind: object) -> "np.ndarray[Any, Any]":
    """NumPy's `_reconstruct` for the one use that `ndarray.__reduce__` makes of it: an empty array, filled later."""
    if subtype is not _NUMPY["numpy", "ndarray"] or shape != (0,):
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
    ("numpy", "ndarray"): object(),  # not to be called: it would allocate
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _NUMPY[_module, "_reconstruct"] = _new_array
    _NUMPY[_module, "scalar"] = _scalar
