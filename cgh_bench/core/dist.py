"""Several processes as one: what `torchrun` started, or a single process, by the same calls.

Process `r` of `W` owns the `r`-th of `W` equal, contiguous blocks of every global batch.
"""

import datetime
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist
from torch import Tensor

from cgh_bench.core.device import pick_device
from cgh_bench.core.errors import UserError

T = TypeVar("T")

PATIENCE = datetime.timedelta(minutes=30)
"""How long a process waits for the others, one of which may hash a dataset or search alone."""
GRACE = 30
"""Seconds to save in, as torchrun gives."""


def fetch(tensors: list[Tensor]) -> Callable[[], list[Tensor]]:
    """Start to copy from the device; what is returned waits for no more than that, and gives the copies."""
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    on_gpu = any(tensor.is_cuda for tensor in tensors)
    there = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
    if there:
        there.record()

    def fetched() -> list[Tensor]:
        if there:
            there.synchronize()
        return copies

    return fetched


@contextmanager
def process_group() -> Iterator[torch.device]:
    """Join the processes that `torchrun` started (nccl for what is on GPUs, else gloo), if it did; gives the device.

    Within another such block nothing happens: they are joined already.

    Raises:
        UserError: another process has ended, or has not answered for `PATIENCE`.
    """
    _end_with_torchrun()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or torch_dist.is_initialized():
        yield pick_device()
        return
    device = pick_device()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch_dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield device
    except RuntimeError as error:
        if not says_that_another_is_lost(error):
            raise
        raise UserError(
            f"process {rank()} stops: another of the {world_size()} has ended, or has not answered for "
            f"{PATIENCE.total_seconds():g} seconds; see what it said, then run the same command to resume"
        ) from None
    finally:
        torch_dist.destroy_process_group()


def says_that_another_is_lost(error: BaseException | None) -> bool:
    """Whether the error is of a process group, whose other processes have ended or do not answer."""
    return isinstance(error, torch_dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


@cache
def _end_with_torchrun() -> None:
    """Stop when `torchrun` is killed, as when it passes a signal on: else its processes would live on without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    torchrun = os.getppid()

    def watch() -> None:
        while os.getppid() == torchrun:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os.kill(os.getpid(), signal.SIGKILL)  # it waits for another that is gone

    threading.Thread(target=watch, daemon=True).start()


def world_size() -> int:
    """How many processes work together; 1 without a process group."""
    return torch_dist.get_world_size() if torch_dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0; 0 without a process group."""
    return torch_dist.get_rank() if torch_dist.is_initialized() else 0


def block(global_batch: int) -> slice:
    """The rows of a batch of `global_batch` that are this process's."""
    each = global_batch // world_size()
    return slice(rank() * each, (rank() + 1) * each)


def share(count: int) -> slice:
    """The part of `count` rows that is this process's: contiguous, in order, none twice; of any number of rows."""
    return slice(rank() * count // world_size(), (rank() + 1) * count // world_size())


@torch.no_grad()
def gather(rows: Tensor) -> Tensor:
    """The (W·B, …) rows of all processes, in the order of the global batch; no gradient flows."""
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
    torch_dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def from_first(tensor: Tensor) -> Tensor:
    """The first process's `tensor`, on all."""
    if world_size() > 1:
        torch_dist.broadcast(tensor, src=0)
    return tensor


def gather_shares(rows: T) -> list[T]:
    """What each process gives, arrays for instance, in the order of the processes."""
    if world_size() == 1:
        return [rows]
    parts: list[Any] = [None] * world_size()
    torch_dist.all_gather_object(parts, rows)
    return parts


def agreed(value: T) -> T:
    """The first process's `value`, on all."""
    if world_size() == 1:
        return value
    holder = [value]
    torch_dist.broadcast_object_list(holder, src=0)
    return holder[0]


def mean(tensor: Tensor) -> Tensor:
    """The mean of `tensor` over the processes."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    torch_dist.all_reduce(total)
    return total / world_size()


def wait_for_all() -> None:
    """Continue only when every process has come here."""
    if world_size() > 1:
        torch_dist.barrier()
