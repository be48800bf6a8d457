"""The processes of a run: its options, its parent, and one process per GPU, which tell each other what each has."""

import argparse
import atexit
import ctypes
import functools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

from cgh_bench.transfer_configs.contract import PARENT

T = TypeVar("T")

INTERRUPTED = 130
"""Exit code of a run that was asked to stop and has saved its state."""
SET_SIGNAL_OF_PARENTS_DEATH = 1
"""PR_SET_PDEATHSIG of prctl(2). It is kept across exec, not across fork."""
LAUNCHER = Path(__file__).absolute().parents[1] / "__main__.py"


def parser(description: str | None, **set_option: Any) -> argparse.ArgumentParser:
    """The options that name a configuration.

    Args:
        description: shown by `--help`.
        set_option: how argparse reads `--set`, which the frameworks spell differently.
    """
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--config", type=Path, required=True, help="the protocol file")
    made.add_argument("--data", type=Path, help="JSON that describes the user's own data, instead of the protocol's")
    made.add_argument("--iterations", type=int, help="training steps; the schedule is stretched to them")
    made.add_argument("--set", nargs="*", dest="settings", metavar="KEY=VALUE", help="the framework's", **set_option)
    return made


def training_parser(description: str | None, **set_option: Any) -> argparse.ArgumentParser:
    """`parser`, with the options of a training run."""
    made = parser(description, **set_option)
    made.add_argument("--weights", type=Path, required=True, help="backbone weights in the framework's format")
    made.add_argument("--work", type=Path, required=True, help="folder for all output")
    made.add_argument("--gpus", type=int, default=0, help="number of processes on all nodes; 0: one, on the CPU")
    made.add_argument("--images-at-a-time", type=int, help="images per process at a time; gradients are accumulated")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--resume", action="store_true", help="resume from WORK/state.pth if it exists")
    return made


def forward_options(description: str | None, *frameworks: str) -> argparse.Namespace:
    """The options of `forward.py`: which of the `frameworks`, and the files that it reads and writes."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--framework", choices=frameworks, required=True)
    for name in ("weights", "fragment", "images", "out"):
        made.add_argument(f"--{name}", type=Path, required=True)
    return made.parse_args()


def end_with_parent() -> None:
    """Be killed when the parent dies, so that no other run starts in a folder in which this one still writes.

    Call it first. On Linux only, and only if `CGH_PARENT` is set: a run started by hand may outlive its shell.
    """
    named = os.environ.get(PARENT)
    if named is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(SET_SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL)
    try:
        os.kill(int(named), 0)
    except ProcessLookupError:  # it died before the line above
        raise SystemExit(f"the parent process {named} is gone") from None


def must_launch(count: int) -> bool:
    """Whether this process must start `count` others: it is not one of them."""
    return count > 1 and "LOCAL_RANK" not in os.environ


def launch(count: int, module: str) -> NoReturn:
    """Become torchrun, which starts `count` processes of `module` (such as "openmmlab.train") with our arguments."""
    if PARENT in os.environ:
        os.environ[PARENT] = str(os.getpid())
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    os.execv(sys.executable, [sys.executable, *launcher, str(LAUNCHER), module, *sys.argv[1:]])


def join() -> None:
    """Join the process group of torchrun, and leave it at exit.

    A process that ends while gloo's threads still run is sometimes aborted by them; torchrun then ends the others.
    """
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if on_gpus else "gloo")
    atexit.register(torch.distributed.destroy_process_group)


@functools.cache
def _on_cpus() -> Any:
    """The group of all processes by gloo, for what is not on a GPU; all make it together, when they first need it."""
    return torch.distributed.new_group(backend="gloo")


def any_of_all(*mine: bool) -> list[bool]:
    """For each of the values, whether it is true in any process. All processes call it together."""
    if not torch.distributed.is_initialized():
        return list(mine)
    found = torch.tensor(mine, dtype=torch.uint8)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, _on_cpus())
    return [bool(value) for value in found]


def gathered(mine: T) -> list[T]:
    """In the first process, the values of all, in their order; nothing in the others. All call it together."""
    if not torch.distributed.is_initialized():
        return [mine]
    is_first = torch.distributed.get_rank() == 0
    places: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.gather_object(mine, places if is_first else None, group=_on_cpus())
    return places if is_first else []


def own(values: Sequence[T]) -> T | None:
    """The value of this process among those that were `gathered`; None if they are of another number of processes."""
    rank, count = 0, 1
    if torch.distributed.is_initialized():
        rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return values[rank] if len(values) == count else None


def average_buffers(model: torch.nn.Module) -> None:
    """Give all processes the mean of their running statistics, after the training.

    Plain BatchNorm sees each process's images alone: without this, an image's prediction would depend on the process
    that it falls to, and only those of the first would be saved.
    """
    if not torch.distributed.is_initialized():
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer.div_(torch.distributed.get_world_size())


def require_gpu_for_mixed_precision(gpus: int, instead: str) -> None:
    """Refuse mixed precision on CPUs, where both frameworks only have an assertion.

    Args:
        gpus: number of processes; 0: one, on the CPU.
        instead: the setting that trains in full precision.

    Raises:
        SystemExit: there is no GPU.
    """
    if not gpus or not torch.cuda.is_available():
        raise SystemExit(
            f"this protocol trains in mixed precision, which needs a GPU; here use --set settings={instead}"
        )


def batch_factor(batch: object, published: int) -> float:
    """The ratio of a batch size set by the user to the protocol's.

    Raises:
        SystemExit: it is not a positive integer.
    """
    if not isinstance(batch, int) or batch < 1:
        raise SystemExit(f"the batch size is {batch!r}; it must be a positive integer")
    return batch / published


def images_per_process(batch: int, count: int) -> int:
    """How many images of a step's batch each of `count` processes takes.

    Raises:
        SystemExit: the batch cannot be divided; the message lists the numbers of GPUs that divide it.
    """
    if batch % count:
        *fewer, most = (str(n) for n in range(1, batch + 1) if batch % n == 0)
        known = f"{', '.join(fewer)} or {most}" if fewer else most
        raise SystemExit(f"a batch of {batch} images cannot be divided among {count} GPUs; use --gpus {known}")
    return batch // count


def out_of_memory(images: int) -> str:
    """The error message for a GPU that cannot hold `images` images at a time."""
    fewer = next((n for n in range(images // 2, 0, -1) if images % n == 0), 0)
    advice = f"use --images-at-a-time {fewer}" if fewer else "use smaller images or a larger GPU"
    return f"OutOfMemoryError: {images} images at a time do not fit into this GPU's memory; {advice}"
