"""What a grid of linear probes costs beside a single one, on random crops and on cached features.

    python benchmarks/linear.py

Saves `results/linear.json`. Ratios are of a whole step (backbone, heads, optimiser) and a whole fit (L-BFGS to the
same tolerance). Seconds are of the CPU, on one thread, as the machine may have other work; each is the smaller of two,
taken in turn, but for ImageNet's parts, which are measured once.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.descent import Descent
from cgh_bench.frozen import probe
from cgh_bench.frozen.heads import Heads

CLASSES = 1000
IMAGENET = 1_281_167
BATCH = 64
GRID = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 10.0)  # of tasks/linear.py
REPEATS = 2


def main() -> None:
    """Measure all, writing down each part as it is done."""
    torch.set_num_threads(1)
    out = Path(__file__).parent / "results" / "linear.json"
    out.parent.mkdir(exist_ok=True)
    measured: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "paper_mode_resnet18": lambda: heads_at_once("resnet18", 48),
            "paper_mode_resnet50": lambda: heads_at_once("resnet50", 48),
            "cached_grid": lambda: cached_grid(1000, 256, 50),
            "cached_imagenet": lambda: cached_imagenet(Path(folder)),
        }
        for name, part in parts.items():
            measured[name] = part()
            machine = {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
            document = {
                "command": "python benchmarks/linear.py",
                "machine": {**machine, "threads": 1, "load": os.getloadavg()[0]},
                "measured": measured,
            }
            out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def heads_at_once(arch: str, count: int) -> dict[str, float]:
    """Seconds per step (backbone forward at 224 pixels, heads forward and backward, SGD), one head and many."""
    backbone = random_checkpoint(arch).backbone(copy=False)
    images, labels = torch.randn(BATCH, 3, 224, 224), torch.randint(CLASSES, (BATCH,))
    first = 0.01 * torch.randn(backbone.dim + 1, CLASSES)
    heads = {n: Heads(first, torch.full((n,), 0.1), torch.zeros(n), Descent()) for n in (1, count)}

    @torch.no_grad()
    def step(n: int) -> None:
        heads[n].step(backbone(images), labels, 1.0)

    one, many = in_turn([lambda: step(1), lambda: step(count)])
    return {"batch": BATCH, "heads": count, "one_s": one, "many_s": many, "ratio": round(many / one, 3)}


def cached_grid(n: int, dim: int, classes: int) -> dict[str, float]:
    """Seconds of a fit to the optimum by L-BFGS, for the grid and for each of its weight decays alone.

    "One" can be the slowest of these, or their mean; both ratios are given. The mean is small, as most weight decays
    converge in a few steps, and on a core the gradients of twelve are twelve times the work of one.
    """
    features, labels = made_up(n, dim, classes)
    task = probe.problem(features, labels, classes, np.arange(n))

    def fit(decays: tuple[float, ...]) -> None:
        probe.fit(task, decays, 300, 1e-6)

    *alone, grid = in_turn([lambda d=decay: fit((d,)) for decay in GRID] + [lambda: fit(GRID)])
    return {
        "images": n,
        "width": dim,
        "classes": classes,
        "grid": len(GRID),
        "grid_s": grid,
        "one_by_one_s": round(sum(alone), 3),
        "slowest_one_s": max(alone),
        "ratio_to_slowest": round(grid / max(alone), 3),
        "ratio_to_mean": round(grid / (sum(alone) / len(alone)), 3),
    }


def cached_imagenet(folder: Path) -> dict[str, float]:
    """Seconds of one evaluation (values and gradients) of the whole grid at parts of ImageNet's size, 2048 wide."""
    features, labels = made_up(IMAGENET // 20, 2048, CLASSES)
    np.save(folder / "features.npy", features)
    del features
    mapped = np.load(folder / "features.npy", mmap_mode="r")
    rows = {part: np.arange(IMAGENET // part) for part in (40, 20)}
    tasks = {part: probe.problem(mapped, labels, CLASSES, rows[part]) for part in rows}
    small, large = in_turn([lambda t=task: probe.fit(t, GRID, 0, 1e-6) for task in tasks.values()], repeats=1)
    return {
        "grid": len(GRID),
        "evaluation_at_1/40_s": small,
        "evaluation_at_1/20_s": large,
        "time_at_twice_the_images": round(large / small, 3),
        "estimated_evaluation_at_1281167_s": round(20 * large, 1),
        "iterations_at_most": 300,
    }


def made_up(n: int, dim: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy clusters, one a class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    centres = rng.standard_normal((classes, dim), dtype=np.float32)
    return rng.standard_normal((n, dim), dtype=np.float32) * 2 + centres[labels], labels


def in_turn(works: list[Callable[[], None]], repeats: int = REPEATS) -> list[float]:
    """The smallest CPU seconds of each of the works, done one after the other, again and again."""
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for number, work in enumerate(works):
            start = time.process_time()
            work()
            best[number] = min(best[number], time.process_time() - start)
    return [round(seconds, 4) for seconds in best]


if __name__ == "__main__":
    main()
