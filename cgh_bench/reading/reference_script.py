"""Record what a model computes, so that cgh-bench can compare what it reads from the model's file.

Run this where the model lives; it needs torch and NumPy only. `prepare` is what your own code does to an image after
resizing and cropping, say torchvision's Compose([ToTensor(), Normalize(mean, std)]); it gets a PIL image, or a uint8
array (H, W, 3) where Pillow is not installed, and returns a tensor (3, H, W). Without it preprocessing is not covered.

    from reference import record
    record(model, "ref.npz", prepare=transform, size=224)

Then: cgh-bench inspect FILE --reference ref.npz
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch

FORMAT = "cgh-bench-reference/1"
SAMPLES = 256
"""Values that are kept of each output, at places spread over all of it."""


def record(model: Any, path: Any, prepare: Callable[[Any], torch.Tensor] | None = None, size: Any = 224) -> None:
    """Write what `model` makes of two fixed images of `size` (one number, or height and width) to `path`."""
    height, width = (size, size) if isinstance(size, int) else size
    pixels = probe_images(height, width)
    images = (pixels.float() / 255 - 0.45) / 0.225
    if prepare is not None:
        images = torch.stack([_prepared(prepare, each) for each in pixels])
    first = next(iter(model.parameters()), images)
    was_training = model.training
    model.eval()
    found = observe(model, lambda: model(images.to(first.device, first.dtype)))
    model.train(was_training)
    arrays: dict[str, Any] = {"input": images.float().cpu().numpy()}
    for kind, entries in found.items():
        for number, entry in enumerate(entries):
            arrays[f"{kind}/{number}"] = entry.pop("values")
    about = {
        "format": FORMAT,
        "size": [height, width],
        "prepared": prepare is not None,
        "model": f"{type(model).__module__}.{type(model).__name__}",
        "torch": torch.__version__,
        "checksum": int(pixels.long().sum()),
    }
    numpy.savez_compressed(path, description=numpy.array(json.dumps({**found, **about})), **arrays)


def probe_images(height: int = 96, width: int = 128) -> torch.Tensor:
    """Two fixed RGB images (2, 3, H, W), uint8: noise of seed 0 over ramps that differ by channel and direction."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 96, (2, 3, height, width), generator=generator)
    down, right = torch.linspace(0, 1, height).view(height, 1), torch.linspace(0, 1, width).view(1, width)
    ramps = torch.stack([150 * down + 0 * right, 90 * right + 0 * down, 40 * down * right])
    return (noise + ramps).to(torch.uint8)


def observe(
    model: torch.nn.Module, run: Callable[[], Any], known: dict[Any, Any] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """What every layer with weights puts out while `run()` works, in its order, and what `run` returns.

    A layer is told by its weights, not by its name, which may be another in another library. Sums over weights are
    kept in `known` and taken from it, for the next model that shares their memory.
    """
    sums = {} if known is None else known
    layers: list[dict[str, Any]] = []
    vectors: list[dict[str, Any]] = []
    handles = []

    def hook(name: str) -> Callable[..., None]:
        def look(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor) or any(layer["name"] == name for layer in layers):
                return
            layers.append({"name": name, "weights": _fingerprint(module, sums), **sample(output)})
            if isinstance(module, torch.nn.Linear) and inputs and inputs[0].ndim == 2:
                vectors.append({"name": "input of " + name, **sample(inputs[0])})

        return look

    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)) and not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(hook(name)))
    try:
        with torch.no_grad():
            returned = run()
    finally:
        for handle in handles:
            handle.remove()
    vectors += [{"name": name, **sample(tensor)} for name, tensor in _tensors("output", returned) if tensor.ndim == 2]
    return {"layers": layers, "vectors": vectors}


def _prepared(prepare: Callable[[Any], torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    array: Any = pixels.permute(1, 2, 0).contiguous().numpy()
    try:
        from PIL import Image

        array = Image.fromarray(array)
    except ImportError:
        pass
    return prepare(array)


def _fingerprint(module: torch.nn.Module, known: dict[Any, Any]) -> dict[str, list[float]]:
    """Sums over each of the layer's own tensors: the same in whatever library the same weights are."""
    found = {}
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if tensor.is_floating_point():
            place = tensor.data_ptr(), tensor.shape, tensor.stride()
            if place not in known:
                known[place] = tensor, _sums(tensor)  # the tensor, so that no other takes its place in memory
            found[name] = known[place][1]
    return found


def _sums(tensor: torch.Tensor) -> list[float]:
    values = tensor.detach().double().cpu().flatten()
    weighted = float((values * torch.linspace(1, 2, len(values), dtype=torch.float64)).sum())
    return [len(values), float(values.abs().sum()), weighted]


def sample(tensor: torch.Tensor) -> dict[str, Any]:
    """The shape of a tensor, its largest absolute value, and values from all over it."""
    values = tensor.detach().float().cpu().reshape(-1)
    kept = values if len(values) <= SAMPLES else values[torch.arange(SAMPLES) * 7919 % len(values)]
    return {"shape": list(tensor.shape), "largest": float(values.abs().max()), "values": kept.numpy()}


def _tensors(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _tensors(f"{name}.{key}", inner)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _tensors(f"{name}.{number}", inner)
