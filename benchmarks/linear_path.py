"""How many evaluations of the whole grid the cached linear probe takes along a path, and whether it finds the optimum.

    python benchmarks/linear_path.py

Saves `results/linear_path.json`. One evaluation is a pass over all train images by all twelve classifiers, values and
gradients; a pass by one classifier over the nine tenths that are fitted counts as 0.9 / 12. "path" is `linear_path`.
"from_zero" is `linear`: the whole grid, or, where that takes hours, the decay that the path chose, on all of train.
Features:

- imagenet_20th: as many images as a twentieth of ImageNet, 1,000 classes, at reduced width; made up: class means and
  noise whose variances fall as 1 / rank, through a random layer with ReLU;
- animals: those of a ResNet-18 with random weights, of the embedded images.

Seconds are of the CPU, on one thread.
"""

import json
import math
import os
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.data import load_pair
from cgh_bench.data.transform import AS_IS
from cgh_bench.frozen import metrics, probe, search
from cgh_bench.frozen.features import FeatureBank, extract
from cgh_bench.frozen.selection import Grid
from cgh_bench.tasks.linear import Linear

IMAGES, VAL, WIDTH, CLASSES = 1_281_167 // 20, 10_000, 128, 1000
LINEAR = Linear()
Banks = tuple[FeatureBank, FeatureBank]


def main() -> None:
    """Measure both, writing down each part as it is done."""
    torch.set_num_threads(1)
    out = Path(__file__).parent / "results" / "linear_path.json"
    measured = {}
    for name, make in {"imagenet_20th": made_up, "animals": animals}.items():
        train, val = make()
        order = np.random.default_rng(0).permutation(len(train.labels))
        split = tuple(np.sort(rows) for rows in np.split(order, [len(order) * 9 // 10]))
        measured[name] = {"images": len(train.labels), "width": train.features.shape[1], "classes": len(train.classes)}
        decays = LINEAR.weight_decays
        for title, path in (("path", True), ("from_zero", False)):
            if not path and name != "animals":
                decays, split = (measured[name]["path"]["chosen"],), (np.arange(len(order)), np.arange(0))
            measured[name][title] = searched(train, val, split, Grid(decays, LINEAR.iterations, LINEAR.tolerance, path))
            document = {
                "command": "python benchmarks/linear_path.py",
                "machine": {"cores": os.cpu_count(), "torch": torch.__version__, "load": os.getloadavg()[0]},
                "measured": measured,
            }
            out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def searched(
    train: FeatureBank, val: FeatureBank, split: tuple[np.ndarray, np.ndarray], grid: Grid
) -> dict[str, object]:
    """The evaluations, the seconds, and what was chosen and found."""
    evaluations = 0.0
    evaluate = probe._cross_entropy

    def counted(task: probe.Problem, heads: torch.Tensor, decays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal evaluations
        evaluations += len(heads) / len(LINEAR.weight_decays) * len(task.rows) / len(train.labels)
        return evaluate(task, heads, decays)

    start = time.process_time()
    with mock.patch.object(probe, "_cross_entropy", counted):
        choice = search.choose(train, val, split, grid, metrics.accuracy)
    return {
        "weight_decays": grid.weight_decays,
        "evaluations": round(evaluations, 2),
        "seconds": round(time.process_time() - start, 1),
        "chosen": grid.weight_decays[choice.index],
        "top1": round(choice.val[choice.index], 3),
        "val_top1": [round(value, 3) for value in choice.val],
        "held_out_top1": [round(value, 3) for value in choice.held_out],
        "converged": choice.converged,
    }


def animals() -> Banks:
    """Features of the embedded images."""
    with tempfile.TemporaryDirectory() as folder:
        pair = load_pair("animals", Path(folder))
        backbone = random_checkpoint("resnet18")
        train, val = (extract(backbone, some, AS_IS, "layer4", Path(folder)) for some in (pair.train, pair.val))
        return tuple(FeatureBank(np.array(bank.features), bank.labels, bank.classes, "") for bank in (train, val))


def made_up() -> Banks:
    """Features (N, D) of `IMAGES` and `VAL` images that are not there."""
    draw = np.random.default_rng(0)
    scale = np.arange(1, WIDTH + 1, dtype=np.float32) ** -0.5
    means = draw.standard_normal((CLASSES, WIDTH), np.float32) * scale
    layer = draw.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(math.sqrt(WIDTH))
    banks = []
    for count in (IMAGES, VAL):
        labels = draw.integers(0, CLASSES, count)
        inner = 0.7 * means[labels] + draw.standard_normal((count, WIDTH), np.float32) * scale
        banks.append(FeatureBank(np.maximum(inner @ layer, 0), labels, tuple(map(str, range(CLASSES))), ""))
    return tuple(banks)


if __name__ == "__main__":
    main()
