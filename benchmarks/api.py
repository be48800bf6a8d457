"""What the Python interface costs: the import, and an evaluation beside the same work by the engine of the command.

    python benchmarks/api.py [--rounds 5]

Both evaluate one ResNet-18 by kNN on the same folder of images, the interface from an `nn.Module` in memory (which it
copies, tries and fingerprints), the other from its checkpoint. Each round measures both, in turn first; the median of
the rounds' ratios counts. Seconds are of the CPU, without imports and other work on the machine. Saves
`results/api.json`.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

FEW = {"train": 2, "val": 1}
IMAGES = {"train": 100, "val": 50}
"""Images of each of two classes."""


def main() -> None:
    """Measure all and write it down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    rounds = options.parse_args().rounds
    imports = [seconds_of_import() for _ in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        few, images = photos(Path(folder, "few"), FEW), photos(Path(folder, "images"), IMAGES)
        sides = both()
        for side in sides:  # what both need imported is imported
            side(few)
        runs = [measured(sides, images, number % 2) for number in range(rounds)]
    found = {
        "ratios": [round(run[0][0] / run[1][0], 4) for run in runs],
        "ratio": round(statistics.median(run[0][0] / run[1][0] for run in runs), 4),
        "cpu_seconds": [round(statistics.median(run[side][0] for run in runs), 2) for side in (0, 1)],
        "same_top1": len({top1 for run in runs for _, top1 in run}) == 1,
        "import_seconds": round(min(imports), 3),
        "torch_after_import": False,
        "images": 2 * sum(IMAGES.values()),
        "machine": platform.machine(),
    }
    (Path(__file__).parent / "results/api.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def measured(sides: list[Callable[[Path], float]], images: Path, first: int) -> list[tuple[float, float]]:
    """CPU seconds and top-1 of either side, of processes that decode images too; `first` goes first."""
    found = [(0.0, 0.0), (0.0, 0.0)]
    for side in (first, 1 - first):
        start = spent()
        top1 = sides[side](images)
        found[side] = spent() - start, top1
    return found


def both() -> list[Callable[[Path], float]]:
    """The evaluation of a folder by the interface, and by the command's engine; they give top-1."""
    import torch
    import torchvision

    import cgh_bench
    from cgh_bench.core.progress import showing
    from cgh_bench.evaluation import evaluate, prepare
    from cgh_bench.workspace import Workspace

    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    checkpoint = cgh_bench.wrap(network)

    def interface(folder: Path) -> float:
        with showing(False):
            return float(cgh_bench.evaluate(network, "knn", str(folder)).metrics["top1"])

    def command(folder: Path) -> float:
        with tempfile.TemporaryDirectory() as work, showing(False):
            workspace = Workspace(Path(work))
            (evaluation,) = prepare(["knn"], workspace, [f"data={folder}"])
            return evaluate(evaluation, checkpoint, 0, workspace).metrics["top1"]

    return [interface, command]


def spent() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    import os

    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def seconds_of_import() -> float:
    """CPU seconds of `import cgh_bench`, in a process of its own, which must not load torch."""
    code = "import time; s = time.perf_counter(); import cgh_bench, sys; e = time.perf_counter(); "
    code += "assert 'torch' not in sys.modules; print(e - s)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)


def photos(folder: Path, images: Mapping[str, int]) -> Path:
    """Noise as JPEG, of a photograph's size; the folder."""
    random = np.random.default_rng(0)
    for split, each in images.items():
        for name in ("cat", "dog"):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(each):
                small = Image.fromarray(random.integers(0, 255, (20, 25, 3), np.uint8))
                small.resize((500, 400)).save(place / f"{number}.jpg")
    return folder


if __name__ == "__main__":
    main()
