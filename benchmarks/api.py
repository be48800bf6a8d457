"""What the Python interface costs: the import, and an evaluation beside the same work by the engine of the command.

    python benchmarks/api.py [--repeats 3]

Both evaluate one ResNet-18 by kNN on the same folder of images, the interface from an `nn.Module` in memory (which it
copies, tries and fingerprints), the other from its checkpoint. Each measurement is a process of its own, the two taking
turns; of several the shortest counts. Ratios are of CPU seconds, imports left out. Saves `results/api.json`.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = {"train": 100, "val": 50}
"""Images of each of two classes."""


def main() -> None:
    """Measure all and write it down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--one", nargs=2, metavar=("WHOSE", "FOLDER"), help="a single measurement, as JSON")
    chosen = options.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one[0], Path(chosen.one[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        photos(Path(folder))
        runs = [(whose, one(whose, folder)) for _ in range(chosen.repeats) for whose in ("interface", "command")]
        imports = [seconds_of_import() for _ in range(5)]
    best = {whose: min(run["cpu"] for name, run in runs if name == whose) for whose in ("interface", "command")}
    found = {
        "cpu_seconds": best,
        "ratio": round(best["interface"] / best["command"], 4),
        "same_top1": len({run["top1"] for _, run in runs}) == 1,
        "import_seconds": round(min(imports), 3),
        "torch_after_import": False,
        "images": 2 * sum(IMAGES.values()),
        "machine": platform.machine(),
    }
    (Path(__file__).parent / "results/api.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def one(whose: str, folder: str) -> dict[str, float]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", whose, folder]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def measure(whose: str, folder: Path) -> dict[str, float]:
    """CPU seconds of the evaluation, processes that decode images included, and what came out."""
    import torch
    import torchvision

    import cgh_bench
    from cgh_bench.core.progress import showing
    from cgh_bench.evaluation import evaluate, prepare
    from cgh_bench.workspace import Workspace

    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    checkpoint = cgh_bench.wrap(network)  # what both need imported is imported
    start = spent()
    with tempfile.TemporaryDirectory() as work, showing(False):
        if whose == "interface":
            result = cgh_bench.evaluate(network, "knn", str(folder))
        else:
            workspace = Workspace(Path(work))
            (evaluation,) = prepare(["knn"], workspace, [f"data={folder}"])
            result = evaluate(evaluation, checkpoint, 0, workspace)
    return {"cpu": round(spent() - start, 3), "top1": result.metrics["top1"]}


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


def photos(folder: Path) -> None:
    """Noise as JPEG, of a photograph's size."""
    random = np.random.default_rng(0)
    for split, each in IMAGES.items():
        for name in ("cat", "dog"):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(each):
                small = Image.fromarray(random.integers(0, 255, (20, 25, 3), np.uint8))
                small.resize((500, 400)).save(place / f"{number}.jpg")


if __name__ == "__main__":
    main()
