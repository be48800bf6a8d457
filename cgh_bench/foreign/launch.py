"""On how many devices a framework runs, and how many images each takes at a time: of the machine, not of a protocol."""

import os

import torch

from cgh_bench.core.errors import UserError

GPUS = "CGH_GPUS"
IMAGES_AT_A_TIME = "CGH_IMAGES_AT_A_TIME"


def choose(gpus: int | None, images_at_a_time: int | None) -> None:
    """Choose for the runs of this process and its children; None leaves what the environment says."""
    for variable, value in ((GPUS, gpus), (IMAGES_AT_A_TIME, images_at_a_time)):
        if value is not None:
            os.environ[variable] = str(value)


def gpus() -> int:
    """How many processes, each on a GPU; where the machine has none, each on the CPU. 0 is one on the CPU.

    All GPUs that are there unless `CGH_GPUS` says otherwise.

    Raises:
        UserError: more than there are, or no number.
    """
    present = torch.cuda.device_count()
    wanted = _number(GPUS, present)
    if present and wanted > present:
        raise UserError(f"{wanted} GPUs are asked for (--gpus, {GPUS}), {present} are there")
    return wanted


def arguments() -> list[str]:
    """What every framework's `train.py` is told of it."""
    images = _number(IMAGES_AT_A_TIME, 0)
    return [f"--gpus={gpus()}", *([f"--images-at-a-time={images}"] if images else [])]


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise UserError(f"{variable}={text!r} is no number of 0 or more")
    return int(text)
