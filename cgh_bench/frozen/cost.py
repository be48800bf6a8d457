"""What one image costs a backbone: FLOPs, counted, and images per second, measured on this machine."""

import time
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cgh_bench.core.dist import pick_device
from cgh_bench.frozen.extraction import Work, layout

BATCH = {"cpu": 8, "cuda": 256}
SECONDS, PASSES = 0.5, 10
"""The speed is the median of so many passes, or of fewer that take this long together."""

_known: dict[Any, dict[str, Any]] = {}
"""What was found in this process: weights do not change it."""


def cost(work: Work) -> dict[str, Any]:
    """What the features of one image cost, for the first of `work`'s images; nothing that reads images.

    Returns:
        `flops`: of one image, two for each multiply-add of convolutions, matrix products and attention (torch's
        FlopCounterMode); `image`: its height and width; `images_per_second`: the median of some passes of `batch`
        images that lie on the device, preprocessing included.
    """
    image = work.transform.cut(work.images.image(0))
    device = pick_device()
    key = work.checkpoint.architecture, work.targets, work.precision, tuple(image.shape), device
    if key not in _known:
        backbone = work.checkpoint.backbone().to(device).to(memory_format=layout(device))
        with torch.inference_mode():
            # Speed first: some networks learn the shapes of their stages in an extra pass before the first.
            speed = _speed(work, backbone, image.to(device).expand(BATCH[device.type], -1, -1, -1).contiguous())
            flops = _flops(work, backbone, image[None].to(device))
            _known[key] = {"flops": flops, "image": list(image.shape[1:]), **speed}
    return _known[key]


def _flops(work: Work, backbone: torch.nn.Module, one: Tensor) -> int:
    # The kernels that fuse attention are not counted on a CPU, its products are.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work.forward(backbone, one)
    return int(counter.get_total_flops())


def _speed(work: Work, backbone: torch.nn.Module, batch: Tensor) -> dict[str, Any]:
    def seconds() -> float:
        start = time.perf_counter()
        for features in work.forward(backbone, batch):
            features[0, 0].item()  # waits for the device
        return time.perf_counter() - start

    seconds()  # the first pass is slower
    passes = [seconds()]
    while len(passes) < PASSES and sum(passes) < SECONDS:
        passes.append(seconds())
    return {"images_per_second": round(len(batch) / median(passes), 1), "batch": len(batch)}
