#!/usr/bin/env python
"""Write the tables of docs/scaling.md, by the estimators that `--dry-run` uses.

python tools/scaling_tables.py
"""

import json
import re
from pathlib import Path

import torch

from cgh_bench import backbones
from cgh_bench.core.files import write_text
from cgh_bench.core.progress import duration
from cgh_bench.data import catalog
from cgh_bench.data.image_set import FetchedImages
from cgh_bench.frozen.features import bank_bytes
from cgh_bench.frozen.neighbours import planned_bytes
from cgh_bench.pretrain import recipe as recipes
from cgh_bench.pretrain.optimisation import optimizer
from cgh_bench.tasks import find, transfer
from cgh_bench.tasks.knn import KNN

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scaling.md"
BETWEEN = re.compile(r"(<!-- tables: [^\n]* -->\n).*(<!-- end of tables -->)", re.DOTALL)

_IMAGENET = catalog()["imagenet1k"]
assert isinstance(_IMAGENET, FetchedImages)
TRAIN, VAL = _IMAGENET.counts
SETS = {
    "ImageNet-1k": TRAIN,
    "ImageNet-22k": 14_197_122,  # https://www.image-net.org/about.php
    "web-scale shards": 100_000_000,
}
MACHINES = {"1 GPU": 1, "8 GPUs": 8, "4 nodes of 8": 32}
RATES = {"resnet50": 1_000, "vit_base_patch16_224": 500}
"""Images per second and GPU, forward, float32. Assumed: round and cautious."""
MOCO_HOURS = 53
"""For 200 epochs on eight V100s: facebookresearch/moco README.md."""
JPEG_BYTES = 138e9 / 1_281_167
"""Mean size of an ImageNet-1k image: ILSVRC2012_img_train.tar has 138 GB."""
RECIPES = (
    "cgh_r50_in1k_200ep",
    "moco_v2_r50_in1k_200ep",
    "ressl_r50_in1k_200ep",
    "byol_r50_in1k_300ep",
    "dino_r50_in1k_100ep",
)


FEATURES = """### Frozen features and kNN

Disk space for the features; memory of the exact search for {val:,} val images and {k} neighbours, which does not depend
on the number of training images; extraction time at an **assumed** number of images per second and GPU: {rates}.

"""
FEEDING = """
### Reading and decoding

An ImageNet file has {kilobytes:.0f} kB on average. One core decodes {decoded:.0f} images of {width}×{height} pixels
per second (**measured**, `benchmarks/results/data_path.json`); yours may be faster or slower.

"""
PRETRAINING = """
### Pretraining

"State" is the size of `checkpoint.pt` on disk; each GPU needs as much memory, plus gradients and activations.
Times use the speed of MoCo v2's own run, {rate:.0f} images per second and V100 ({hours} hours for 200 epochs on eight,
facebookresearch/moco README.md), **assumed** for every method and number of GPUs; methods that train on both views take
longer.

"""
DETECTION = """
### Detection and segmentation

Times use the speed of detectron2's model zoo on eight V100s; one GPU is **assumed** to take eight times as long. Each
run's folder takes up to {gigabytes:g} GB.

"""


def tables() -> str:
    """The text between the markers on the page."""
    return "".join([_features(), _feeding(), _pretraining(), _detection()])


def page(text: str) -> str:
    """The page `text` with new tables."""
    found = BETWEEN.search(text)
    assert found, f"{PAGE} has lost its marks"
    return text[: found.end(1)] + tables() + text[found.start(2) :]


def _features() -> str:
    """Disk, memory of the search and time, by number of images and network."""
    task = find("imagenet_knn")
    assert isinstance(task, KNN)
    rows = []
    for title, images in SETS.items():
        for arch, rate in RATES.items():
            architecture = backbones.named(arch)
            width = architecture.width(architecture.targets(task.feature))
            times = [duration(images / (rate * gpus)) for gpus in MACHINES.values()]
            search = planned_bytes(images, VAL, width, max(task.k_grid)) / 1e9
            disk = bank_bytes(images, width) / 1e9
            rows.append([f"{title}, {images:,}", f"{arch}, {width:,}", f"{disk:,.1f} GB", f"{search:.1f} GB", *times])
    rates = ", ".join(f"{rate:,} ({arch})" for arch, rate in RATES.items())
    head = ["train images", "network, width", "disk", "search", *MACHINES]
    return FEATURES.format(val=VAL, k=max(task.k_grid), rates=rates) + _table(head, rows)


def _feeding() -> str:
    """What disk and cores must deliver at the assumed speed of a ResNet-50."""
    measured = json.loads((ROOT / "benchmarks/results/data_path.json").read_text(encoding="utf-8"))
    decoded = measured["images_per_processor_second"]["ours"]
    rows = []
    for title, gpus in MACHINES.items():
        rate = gpus * RATES["resnet50"]
        rows.append([title, f"{rate:,} images/s", f"{rate * JPEG_BYTES / 1e9:.1f} GB/s", f"{rate / decoded:.0f}"])
    text = FEEDING.format(kilobytes=JPEG_BYTES / 1e3, decoded=decoded, **measured["jpeg"])
    return text + _table(["", "ResNet-50, as assumed", "from disk", "cores to decode"], rows)


def _pretraining() -> str:
    """Size of the state and time of recipes, at the speed of MoCo's own run."""
    rate = TRAIN * 200 / (MOCO_HOURS * 3600) / 8
    rows = []
    for name in RECIPES:
        recipe = recipes.find(name)
        times = [duration(recipe.epochs * TRAIN / (rate * gpus)) for gpus in MACHINES.values()]
        rows.append([f"`{name}`", f"{state_bytes(recipe) / 1e9:.2f} GB", *times])
    return PRETRAINING.format(rate=rate, hours=MOCO_HOURS) + _table(["recipe", "state", *MACHINES], rows)


def state_bytes(recipe: recipes.Recipe) -> int:
    """Bytes that a run of `recipe` saves: networks, queues and the optimiser's state."""
    with torch.device("meta"):
        method = recipe.method.build(recipe.architecture)
    held = [value for value in method.state_dict().values() if isinstance(value, torch.Tensor)]
    trained = [each for group in optimizer(recipe, method).param_groups for each in group["params"]]
    remembered = 2 if recipe.optimizer == "adamw" else 1
    return _bytes(held) + remembered * _bytes(trained)


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _detection() -> str:
    """Time of the protocols whose speed is in detectron2's model zoo."""
    rows = []
    for name, seconds in transfer.SECONDS_PER_STEP.items():
        steps = transfer.stated("detectron2", name, "iterations")
        rows.append([f"`{name}`", f"{steps:,}", duration(8 * seconds * steps), duration(seconds * steps)])
    text = DETECTION.format(gigabytes=transfer.GIGABYTES)
    return text + _table(["protocol", "steps", "1 GPU", "8 GPUs"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
