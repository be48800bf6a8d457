"""A bank of features on disk while it is being filled."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from cgh_bench.core import dist
from cgh_bench.core.errors import UserError

FILLED = "filled.npy"
"""Beside the bank while it is being filled: which rows are."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class BankFile:
    """A bank whose rows appear one by one."""

    features: "np.memmap[Any, Any]"
    """(N, D)"""
    filled: "np.memmap[Any, Any]"
    """(N,) which rows are on disk."""
    waiting: list[Rows] = field(default_factory=list)
    """Rows that were written and may not be on disk yet."""

    def write(self, rows: Rows, values: NDArray[np.float32]) -> None:
        """Fill the `rows` with `values` (R, D)."""
        self.features[rows] = values
        self.waiting.append(rows)

    def save(self) -> None:
        """Say that the rows written so far are filled, after they are."""
        self.features.flush()
        for rows in self.waiting:
            self.filled[rows] = True
        self.filled.flush()
        self.waiting.clear()


def open_bank(folder: Path, n: int, dim: int) -> BankFile:
    """The bank (N, D) in `folder`, made where there is none; every process must call this.

    Raises:
        UserError: no room on the disk.
    """
    features, filled = folder / "features.npy", folder / FILLED
    if dist.rank() == 0 and not filled.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _allocate(features, np.float32, (n, dim))
        _allocate(filled, np.bool_, (n,))
    dist.wait_for_all()
    return BankFile(np.load(features, mmap_mode="r+"), np.load(filled, mmap_mode="r+"))


def _allocate(path: Path, kind: type, shape: tuple[int, ...]) -> None:
    """An array of zeros on disk, which appears under its name when it is all there."""
    temporary = path.with_suffix(".part")
    try:
        open_memmap(temporary, mode="w+", dtype=kind, shape=shape)  # type: ignore[no-untyped-call]
        with temporary.open("rb+") as file:  # a full disk must be an error here, not a bus error later
            os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        size = f"{math.prod(shape) * np.dtype(kind).itemsize / 1e9:.1f} GB"
        raise UserError(f"no room for {size} in {path.parent} ({error.strerror}); make some, or name --work") from None
    temporary.replace(path)
