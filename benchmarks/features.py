"""How near feature extraction comes to the bare forward pass of the backbone at the same batch size.

    python benchmarks/features.py [--arch resnet50] [--images 512]

Pictures of 224×224 in memory, and the same as JPEG files that loader processes decode. All three take turns; of several
the shortest counts. On a machine without a GPU decoding takes the cores that the network computes on. Saves
`results/features.json`.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.data.folder import load_folder
from cgh_bench.data.image_set import ColourImages, ImageSet
from cgh_bench.data.transform import AS_IS, EvalTransform
from cgh_bench.extraction import BATCH_SIZE
from cgh_bench.features import extract

SIDE = 224
REPEATS = 3


def main() -> None:
    """Measure all and write it down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--arch", default="resnet50")
    options.add_argument("--images", type=int, default=2 * BATCH_SIZE)
    chosen = options.parse_args()
    trunk = random_checkpoint(chosen.arch)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (chosen.images, 3, SIDE, SIDE), dtype=np.uint8)
    labels = np.zeros(chosen.images, np.int64)
    rates: dict[str, list[float]] = {"forward": [], "in_memory": [], "jpeg_files": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder / "set", pixels)
        files = load_folder(folder / "set", "train")
        for repeat in range(REPEATS):
            held = ColourImages("noise", ("noise",), labels, str(repeat), pixels)
            cache = folder / f"cache{repeat}"
            rates["forward"].append(chosen.images / forward(trunk, chosen.images))
            rates["in_memory"].append(chosen.images / extraction(trunk, held, AS_IS, cache))
            rates["jpeg_files"].append(chosen.images / extraction(trunk, files, EvalTransform(SIDE, SIDE), cache))
            print({kind: round(values[-1], 1) for kind, values in rates.items()}, file=sys.stderr, flush=True)
    best = {kind: max(values) for kind, values in rates.items()}
    document = {
        "command": " ".join(["python", *sys.argv]),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "arch": chosen.arch,
        "images": chosen.images,
        "batch": BATCH_SIZE,
        "images_a_second": {kind: round(value, 1) for kind, value in best.items()},
        "share_of_forward": {kind: round(best[kind] / best["forward"], 3) for kind in ("in_memory", "jpeg_files")},
    }
    out = Path(__file__).parent / "results" / "features.json"
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def forward(trunk: Checkpoint, images: int) -> float:
    """Seconds of the bare network on one batch that is there already, as often as needed."""
    network = trunk.backbone()
    targets = trunk.architecture.targets("layer4")
    batch = torch.zeros(BATCH_SIZE, 3, SIDE, SIDE)
    with torch.inference_mode():
        network.pooled(batch[:2], targets)
        started = time.perf_counter()
        for _ in range(images // BATCH_SIZE):
            network.pooled(batch, targets)
        return time.perf_counter() - started


def extraction(trunk: Checkpoint, images: ImageSet, transform: EvalTransform, cache: Path) -> float:
    """Seconds of the whole extraction, to the bank on disk."""
    started = time.perf_counter()
    extract(trunk, images, transform, "layer4", cache)
    return time.perf_counter() - started


def write_files(folder: Path, pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> None:
    """An ImageFolder of one class with the pictures as JPEG, blurred so that they are no larger than photographs."""
    for split, some in (("train", pixels), ("val", pixels[:1])):
        (folder / split / "noise").mkdir(parents=True)
        for number, picture in enumerate(some):
            small = Image.fromarray(picture.transpose(1, 2, 0)).resize((SIDE // 4, SIDE // 4))
            small.resize((SIDE, SIDE)).save(folder / split / "noise" / f"{number:06d}.jpg")


if __name__ == "__main__":
    main()
