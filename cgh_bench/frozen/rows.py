"""The rows of a bank of features on the device that searches them: a chunk at a time, kept there if there is room."""

import itertools
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgh_bench.core.ahead import ahead
from cgh_bench.core.errors import UserError

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

ROWS_PER_CHUNK = 16_384
SHARE_OF_GPU = 0.5
"""A bank that takes no more of a GPU's free memory than this stays there after its first pass."""


class Rows:
    """The rows (N, D) of a bank, in chunks and one by one.

    A thread reads a chunk while the one before is in use, and on a GPU copies it there, from pinned memory on a stream
    of its own. A memory-mapped bank is read from its file: mapped pages would pile up in memory and cost a fault each.
    """

    def __init__(self, bank: Floats, device: torch.device) -> None:
        self.bank, self.device = bank, device
        self.kept: Tensor | None = None
        self.complete = False
        """Whether `kept` holds all rows."""
        if device.type == "cuda" and bank.nbytes <= SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]:
            self.kept = torch.empty(bank.shape, device=device)

    def __len__(self) -> int:
        return len(self.bank)

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """The number of the first row and `ROWS_PER_CHUNK` rows on the device; the next overwrites them.

        Raises:
            UserError: the file is shorter than it was.
        """
        if self.kept is not None and self.complete:
            yield from zip(range(0, len(self), ROWS_PER_CHUNK), torch.split(self.kept, ROWS_PER_CHUNK), strict=True)
            return
        for start, rows in ahead(self._brought()):
            if rows.is_cuda:
                rows.record_stream(torch.cuda.current_stream())  # its memory is not used again before it was searched
            yield start, rows
        self.complete = self.kept is not None

    def _brought(self) -> Iterator[tuple[int, Tensor]]:
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        for start, chunk in self._read(pinned=stream is not None):
            with torch.cuda.stream(stream):
                if self.kept is not None:
                    rows = self.kept[start : start + len(chunk)].copy_(chunk, non_blocking=True)
                else:
                    rows = chunk.to(self.device, non_blocking=True)
            if stream:
                stream.synchronize()
            yield start, rows

    def _read(self, pinned: bool) -> Iterator[tuple[int, Tensor]]:
        """Chunks in memory; each but those of a bank in memory is overwritten by the next but one."""
        starts = range(0, len(self), ROWS_PER_CHUNK)
        if not pinned and self.bank.flags.writeable:
            yield from ((start, torch.from_numpy(self.bank[start : start + ROWS_PER_CHUNK])) for start in starts)
            return
        shape = min(ROWS_PER_CHUNK, len(self)), self.bank.shape[1]
        buffers = itertools.cycle([torch.empty(shape, pin_memory=pinned) for _ in range(2)])
        with ExitStack() as stack:
            mapped = self.bank if _is_mapped(self.bank) else None
            file = None if mapped is None else stack.enter_context(_opened(mapped))
            if file and mapped is not None:
                file.seek(mapped.offset)
            for start, buffer in zip(starts, buffers, strict=False):
                chunk = buffer[: len(self) - start]
                if file and mapped is not None:
                    _require_read(file.readinto(chunk.numpy().data), chunk.numpy(), mapped)
                else:
                    np.copyto(chunk.numpy(), self.bank[start : start + len(chunk)])
                yield start, chunk

    def take(self, rows: Tensor) -> Tensor:
        """The rows (Q, K, D) of these numbers (Q, K), few of many."""
        if self.kept is not None and self.complete:
            return self.kept[rows]
        wanted = rows.cpu().numpy()
        if not _is_mapped(self.bank):
            return torch.from_numpy(self.bank[wanted]).to(self.device)
        taken = np.empty((wanted.size, self.bank.shape[1]), self.bank.dtype)
        with _opened(self.bank) as file:
            for row, out in zip(wanted.reshape(-1).tolist(), taken, strict=True):
                _require_read(os.preadv(file.fileno(), [out.data], self.bank.offset + row * out.nbytes), out, self.bank)
        return torch.from_numpy(taken.reshape(*wanted.shape, -1)).to(self.device)


def _is_mapped(bank: Floats) -> "TypeGuard[np.memmap[Any, Any]]":
    """Whether `bank` is the whole of a read-only file, row after row."""
    mapped = isinstance(bank, np.memmap) and isinstance(bank.base, mmap.mmap) and bank.mode == "r"
    return mapped and bank.flags.c_contiguous


def _opened(bank: "np.memmap[Any, Any]") -> BufferedReader:
    assert bank.filename is not None
    return Path(bank.filename).open("rb")


def _require_read(count: int, into: Floats, bank: "np.memmap[Any, Any]") -> None:
    if count != into.nbytes:
        raise UserError(f"{bank.filename} was truncated; delete its folder to compute it again")
