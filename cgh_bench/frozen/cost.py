"""What a backbone costs: FLOPs, counted; time and memory, measured on this machine."""

import time
import weakref
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cgh_bench.core.device import pick_device
from cgh_bench.frozen.extraction import Faults, Transformed, Work, collate, layout

BATCH = {"cpu": 8, "cuda": 256}
SECONDS, PASSES = 0.5, 10
"""The speed is the median of this number of passes, or of fewer if they take this many seconds together."""
IMAGES_TIMED = 32

_known: dict[Any, dict[str, Any]] = {}
_passes: dict[Any, tuple[float, int]] = {}
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


class Measured(NamedTuple):
    """What extraction takes here."""

    images_per_second: float
    """Reading included."""
    bytes: int
    """The most that weights and activations of a batch take at once."""


def measured(work: Work) -> Measured:
    """Measured on one small batch; unless none of its images can be used, those are for `fill` to name."""
    device = pick_device()
    dataset = Transformed(work, np.arange(min(IMAGES_TIMED, work.batch_size)))
    start = time.perf_counter()
    batch = collate([dataset[row] for row in range(len(dataset))])
    reading = time.perf_counter() - start
    if not batch.usable:
        Faults(work.images, batch.refused).require_none()
    wanted = {name: value for name, value in vars(work).items() if name not in ("checkpoint", "images")}
    key = type(work), work.checkpoint.architecture, *wanted.values(), batch.pixels.shape, device
    if key not in _passes:
        _passes[key] = _pass(work, batch.pixels.to(device))
    seconds, most = _passes[key]
    weights = sum(tensor.nbytes for tensor in work.checkpoint.weights.values())
    return Measured(len(dataset) / (reading + seconds), weights + work.batch_size * most)


def _pass(work: Work, pixels: Tensor) -> tuple[float, int]:
    """The seconds that a batch takes, and the most bytes of activations of one image."""
    backbone = work.checkpoint.backbone().to(pixels.device).to(memory_format=layout(pixels.device))
    with torch.inference_mode():
        with Allocations() as allocated:  # the first pass is slower, and not timed
            work.forward(backbone, pixels[:1])
        start = time.perf_counter()
        for features in work.forward(backbone, pixels):
            features.cpu()
        return time.perf_counter() - start, allocated.most


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this block, what its operations allocate is counted; a library's own work space is not seen."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        """The largest number of bytes that were alive at once."""
        self._alive: dict[int, int] = {}
        """The size of each living storage, by its address."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func`, and look at what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            weakref.finalize(storage, self._alive.pop, key)
            self.most = max(self.most, sum(self._alive.values()))
