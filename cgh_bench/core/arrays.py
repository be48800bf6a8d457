"""NumPy's files, of others too: whatever is wrong in one is a ValueError of one line."""

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

DAMAGED = (
    EOFError, LookupError, MemoryError, OverflowError, RecursionError, RuntimeError, SyntaxError, TypeError, ValueError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy and zipfile raise for files that are damaged."""


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
    except DAMAGED as error:
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
