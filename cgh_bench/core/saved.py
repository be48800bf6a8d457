"""Arrays and training states in files, of others too: whatever is wrong in one is told in one line."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError, one_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_DAMAGED_ARRAYS = (
    EOFError, LookupError, MemoryError, OverflowError, RecursionError, RuntimeError, SyntaxError, TypeError, ValueError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy and zipfile raise for files that are damaged."""
_DAMAGED_STATE = (
    AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, UnpicklingError, struct.error,
)  # fmt: skip


def load_arrays(file: Path | BinaryIO) -> dict[str, NDArray[Any]]:
    """The arrays in an `.npz` file by their names; the one in an `.npy` file has the name "".

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged, or holds pickled objects.
    """
    try:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"": found}
        with found:
            return dict(found)
    except _DAMAGED_ARRAYS as error:
        raise ValueError(f"{type(error).__name__}: {one_line(error)}") from None


@contextmanager
def restoring(path: Path, advice: str) -> Iterator[None]:
    """In this block `path` is read, and its content put where it belongs.

    Raises:
        UserError: it is damaged, or has something else in it; the message ends with the `advice`.
    """
    try:
        yield
    except _DAMAGED_STATE as error:
        if isinstance(error, UserError) or getattr(error, "filename", None):  # the file cannot be opened
            raise
        raise UserError(f"{path} is damaged or not a training state; {advice}") from None


def load(path: Path) -> dict[str, Any]:
    """What was saved in `path`, on the CPU; see `restoring`.

    Raises:
        ValueError: a tensor has no values (sparse, meta), or not finite ones.
    """
    import torch

    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for tensor in _tensors(state):
        if tensor.layout != torch.strided or not is_finite(tensor):
            raise ValueError("not the values of a training")
    return state


def is_finite(tensor: "Tensor") -> bool:
    """Whether no value is NaN or infinite. Their sum tells in a tenth of the time, unless it overflows."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _tensors(node: object) -> "Iterator[Tensor]":
    from torch import Tensor

    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, Mapping | list | tuple):
        for each in node.values() if isinstance(node, Mapping) else node:
            yield from _tensors(each)


def restore(optimizer: "torch.optim.Optimizer", state: dict[str, Any]) -> None:
    """`optimizer.load_state_dict`, which takes momenta of any shape.

    Raises:
        ValueError: one is not of its parameter's shape.
    """
    from torch import Tensor

    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        if any(isinstance(each, Tensor) and each.ndim and each.shape != parameter.shape for each in kept.values()):
            raise ValueError("a momentum of another shape")
