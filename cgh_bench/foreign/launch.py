"""The hardware that a framework runs on: GPUs, machines, images at a time."""

import os
from dataclasses import dataclass

from cgh_bench.core.errors import UserError


@dataclass(frozen=True)
class Launch:
    """The hardware that a framework runs on. It changes no result, so it is not part of a protocol."""

    gpus: int | None = None
    """Processes, one per GPU (0: one, on the CPU). None: `$CGH_GPUS`, else all visible GPUs."""
    images_at_a_time: int | None = None
    """Images per process at a time. None: `$CGH_IMAGES_AT_A_TIME`, else the process's whole share of the batch."""
    elsewhere: bool = False
    """Whether it is only planned here: `gpus` are of other machines, all of them together."""

    def processes(self) -> int:
        """How many processes work together, one per GPU. 0: one, on the CPU.

        Raises:
            UserError: more than there are GPUs or `torchrun` started, or the environment variable is not a number.
        """
        import torch

        from cgh_bench.core import dist

        if self.elsewhere:
            return self.gpus or 0
        if (started := dist.world_size()) > 1:
            if self.gpus not in (None, started, int(os.environ["LOCAL_WORLD_SIZE"])):  # of all nodes, or per node
                raise UserError(f"--gpus {self.gpus} requested, but torchrun started {started}; leave --gpus out")
            return started
        present = torch.cuda.device_count()
        wanted = _from_environment("CGH_GPUS", present) if self.gpus is None else self.gpus
        if wanted > present:
            only = (
                f"only {present} visible; use --gpus {present} or fewer" if present else "none is visible; use --gpus 0"
            )
            raise UserError(f"--gpus {wanted} requested, but {only}")
        return wanted

    def arguments(self) -> list[str]:
        """The options of every framework's `train`."""
        images = self.images_at_a_time or _from_environment("CGH_IMAGES_AT_A_TIME", 0)
        return [f"--gpus={self.processes()}", *([f"--images-at-a-time={images}"] if images else [])]


DEFAULT_LAUNCH = Launch()


def _from_environment(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise UserError(f"{variable}={text!r} must be a non-negative integer")
    return int(text)
