"""How near feature extraction comes to the bare forward pass of the backbone at the same batch size.

    python benchmarks/features.py [--arch resnet18 resnet50] [--images 512]

Pictures of 224×224 in memory; the two take turns, and the median of the rounds' ratios counts. On a CPU the seconds are
those of the processor, which other work on the machine hardly changes; on a GPU those of the wall clock. Saves
`results/features.json`. Files are another matter: loader processes decode them, on a CPU beside the network's work.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.data.image_set import ColourImages, ImageSet
from cgh_bench.data.transform import AS_IS
from cgh_bench.frozen.extraction import BATCH_SIZE
from cgh_bench.frozen.features import extract

SIDE = 224
REPEATS = 3


def main() -> None:
    """Measure all and write it down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--arch", nargs="+", default=("resnet18", "resnet50"))
    options.add_argument("--images", type=int, default=2 * BATCH_SIZE)
    chosen = options.parse_args()
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "python": platform.python_version()}
    document = {
        "command": " ".join(["python", *sys.argv]),
        "machine": {**machine, "load": os.getloadavg()[0]},
        "images": chosen.images,
        "batch": BATCH_SIZE,
        "measured": {arch: measure(arch, chosen.images) for arch in chosen.arch},
    }
    out = Path(__file__).parent / "results" / "features.json"
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def measure(arch: str, images: int) -> dict[str, float]:
    """Images a second of the bare network and of the whole extraction, and their ratio."""
    backbone = random_checkpoint(arch)
    pixels = np.random.default_rng(0).integers(0, 256, (images, 3, SIDE, SIDE), dtype=np.uint8)
    labels = np.zeros(images, np.int64)
    rates: dict[str, list[float]] = {"forward": [], "extraction": []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(REPEATS):
            held = ColourImages("noise", ("noise",), labels, str(repeat), pixels)
            rates["forward"].append(images / forward(backbone, images))
            rates["extraction"].append(images / extraction(backbone, held, Path(folder, str(repeat))))
            print(arch, {kind: round(values[-1], 1) for kind, values in rates.items()}, file=sys.stderr, flush=True)
    share = median(mine / bare for bare, mine in zip(rates["forward"], rates["extraction"], strict=True))
    shown = {f"{kind}_images_a_second": round(median(values), 1) for kind, values in rates.items()}
    return {**shown, "share_of_forward": round(share, 3)}


def clock() -> float:
    """Seconds of the processor, or where a GPU computes of the wall."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def forward(backbone: Checkpoint, images: int) -> float:
    """Seconds of the bare network on one batch that is there already, as often as needed."""
    network = backbone.backbone()
    targets = backbone.architecture.targets("layer4")
    batch = torch.randn(BATCH_SIZE, 3, SIDE, SIDE)  # zeros may be one page of memory, read over and over
    with torch.inference_mode():
        network.pooled(batch[:2], targets)
        started = clock()
        for _ in range(images // BATCH_SIZE):
            network.pooled(batch, targets)
        return clock() - started


def extraction(backbone: Checkpoint, images: ImageSet, cache: Path) -> float:
    """Seconds of the whole extraction, to the bank on disk."""
    started = clock()
    extract(backbone, images, AS_IS, "layer4", cache)
    return clock() - started


if __name__ == "__main__":
    main()
