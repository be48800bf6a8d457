"""The device that computes: which, how much of the machine, in which arithmetic. Importing it loads no torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cgh_bench.core.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "tf32", "bf16"]
"""tf32: float32 whose products have 10 bits of mantissa, on NVIDIA GPUs alone; bf16: autocast."""
DETERMINISTIC = "CGH_DETERMINISTIC"


@dataclass(frozen=True)
class Resources:
    """What an evaluation may use of the machine, which its result does not depend on; None: as the machine suggests."""

    device: str | None = None
    """`cpu`, `cuda` or `cuda:1`."""
    workers: int | None = None
    """Processes that decode images."""
    batch_size: int | None = None
    """Images at a time through a frozen backbone, at most."""


_UNLIMITED = Resources()
_resources: ContextVar[Resources] = ContextVar("resources", default=_UNLIMITED)


def resources() -> Resources:
    """What may be used now."""
    return _resources.get()


@contextmanager
def limited(to: Resources) -> Iterator[None]:
    """Within the block, use no more than these resources."""
    token = _resources.set(to)
    try:
        yield
    finally:
        _resources.reset(token)


def pick_device() -> "torch.device":
    """The device that was asked for, else the current CUDA device where there is one, else the CPU.

    Raises:
        UserError: the one that was asked for is not there.
    """
    import torch

    here, asked = torch.cuda.device_count(), resources().device
    if asked is None:
        return torch.device("cuda" if here else "cpu")
    present = ["cpu", *(["cuda"] if here else []), *(f"cuda:{number}" for number in range(here))]
    if asked not in present:
        raise UserError(f"--device {asked}: this machine has {', '.join(present)}")
    return torch.device(asked)


@contextmanager
def arithmetic(precision: Precision, device: "torch.device") -> Iterator[None]:
    """Within, networks on `device` compute in `precision`.

    fp32 means it: TF32, which cuDNN's convolutions use unless told otherwise, is off. Afterwards all is as before.

    Raises:
        UserError: TF32 on a CPU, which has none.
    """
    import torch

    if precision == "tf32" and device.type != "cuda":
        raise UserError("precision=tf32 needs an NVIDIA GPU; use fp32 or bf16")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def follow_environment() -> None:
    """Where CGH_DETERMINISTIC is 1, a GPU repeats its numbers bit for bit, more slowly; a CPU does so anyway.

    An operation that cannot is an error that names it (`torch.use_deterministic_algorithms`).
    """
    import torch

    if os.environ.get(DETERMINISTIC) == "1":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
