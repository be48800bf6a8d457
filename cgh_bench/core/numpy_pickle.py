"""The pickles of NumPy arrays that Detectron, Caffe2 and converters for detectron2 write, read without running code."""

import collections
import mmap
import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from cgh_bench.core.pickles import UNREADABLE, refusal, stand_in


def load_numpy(path: Path) -> Any:
    """What `pickle.dump` wrote, if it holds nothing but NumPy arrays, numbers, strings and containers.

    Raises:
        UserError: damaged, or it names anything else.
    """
    try:
        with path.open("rb") as file:
            _require_sound(file)
            return _NumpyUnpickler(file, encoding="latin1").load()
    except _Blocked as blocked:
        raise refusal(path, [str(blocked)], blocked) from None
    except UNREADABLE as error:
        raise refusal(path, [], error) from None


def _require_sound(file: BinaryIO) -> None:
    """Refuse lengths beyond the file's end and memo places beyond its size: either would take all memory."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for operation, argument, _ in pickletools.genops(cast(Any, content)):
            if "PUT" in operation.name and int(argument or 0) > len(content):
                raise pickle.UnpicklingError("a memo place beyond the file")


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
