"""What a run leaves in its folder: files written whole or not at all, package versions, each process's own state."""

import contextlib
import importlib.metadata
import json
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.part")
    yield temporary
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as strict JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False), encoding="utf-8")


def finish(work: Path, metrics: Mapping[str, float], modules: Sequence[str]) -> None:
    """Record a finished run in the folder `work`: the versions of `modules` and its metrics. Its state is removed."""
    write_json(work / "versions.json", versions(modules))
    write_json(work / "metrics.json", metrics)
    (work / "state.pth").unlink(missing_ok=True)


def versions(modules: Sequence[str]) -> dict[str, str]:
    """The version of each imported module, under the name of the package that provides it here.

    Some frameworks exist as several packages with the same modules. If the package has another name than the module,
    the module's own version is listed as well.
    """
    providers = importlib.metadata.packages_distributions()
    found = {}
    for module in modules:
        names = sorted(set(providers.get(module, ())))
        if module not in names and hasattr(sys.modules.get(module), "__version__"):
            found[module] = str(sys.modules[module].__version__)
        found |= {name: importlib.metadata.version(name) for name in names}
    return found


def own_state(model: torch.nn.Module) -> dict[str, Any]:
    """What differs between the processes of a run, as tensors and plain values.

    The model's buffers, such as BatchNorm's running statistics, and the states of the random number generators on the
    CPU.
    """
    algorithm, keys, *rest = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    return {
        "buffers": {name: buffer.cpu() for name, buffer in model.named_buffers()},
        "torch": torch.get_rng_state(),
        "numpy": (algorithm, torch.from_numpy(keys.astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def restore_own(state: Mapping[str, Any], model: torch.nn.Module) -> None:
    """Restore what `own_state` returned but torch's random state: that last, by `torch.set_rng_state`."""
    for name, buffer in model.named_buffers():
        buffer.copy_(state["buffers"][name])
    algorithm, keys, *rest = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
