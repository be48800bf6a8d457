"""A step's batch on one or several processes, each on a GPU of its own, all on one machine."""

import atexit
import os
import sys
from typing import NoReturn

import parent
import torch

INTERRUPTED = 130
"""Exit code of a run that was asked to stop and has saved its state."""


def must_launch(count: int) -> bool:
    """Whether this process is to start `count` others, of which it is none yet."""
    return count > 1 and "LOCAL_RANK" not in os.environ


def launch(count: int, script: str) -> NoReturn:
    """Become torchrun, which runs `script` with this process's arguments, `count` times."""
    parent.lead()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    os.execv(sys.executable, [sys.executable, *launcher, script, *sys.argv[1:]])


def join() -> None:
    """Join the processes that torchrun has started, and leave them at this one's end.

    One that ends while gloo's threads still run is now and then aborted by them; torchrun then ends the others.
    """
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if on_gpus else "gloo")
    atexit.register(torch.distributed.destroy_process_group)


def times(batch: object, published: int) -> float:
    """How many times as large as the protocol's a batch is that was set in its place; refuses what is none."""
    if not isinstance(batch, int) or batch < 1:
        raise SystemExit(f"a batch of {batch!r} images; accepted: a whole number from 1 on")
    return batch / published


def share(batch: int, count: int) -> int:
    """How many images of a step's batch each of `count` processes takes; refuses what cannot be divided."""
    if batch % count:
        *fewer, most = (str(n) for n in range(1, batch + 1) if batch % n == 0)
        known = f"{', '.join(fewer)} or {most}" if fewer else most
        raise SystemExit(f"a batch of {batch} images cannot be divided among {count} GPUs; --gpus {known} can")
    return batch // count


def too_large(images: int) -> str:
    """What to tell where a GPU has no memory for so many `images` at a time."""
    fewer = next((n for n in range(images // 2, 0, -1) if images % n == 0), 0)
    less = f"take fewer: --images-at-a-time {fewer}" if fewer else "take smaller images, or a larger GPU"
    return f"OutOfMemoryError: {images} images at a time are too many for this GPU; {less}"
