"""Images/s of one core from JPEG files to a batch of two views, against the usual pipeline of Pillow and torchvision.

    python benchmarks/data_path.py

Both read the same JPEGs of 500×375 pixels (ImageNet's median size) and make CGH's weak and strong views of 224 pixels,
normalised and stacked: ours by `Batches`, the usual one as in MoCo's and ReSSL's code, image by image and view by
view. One thread, no worker processes; rounds of both take turns, and of the ratios within a round, as of the rates,
the median counts: the machine's speed drifts, and views are drawn anew. Saves `results/data_path.json`. That both draw
from one distribution of views is tested: tests/parity/test_data_path.py.
"""

import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from operator import truediv
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from cgh_bench.data import load
from cgh_bench.pretrain.batches import Batches
from cgh_bench.pretrain.recipe import Recipe, find

IMAGES, BATCH, ROUNDS = 128, 64, 30
WIDTH, HEIGHT = 500, 375


def main() -> None:
    """Measure and write it down."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder))
        recipe = replace(find("cgh_r50_in1k_200ep"), data=folder, batch_size=BATCH)
        seconds = in_turn({"ours": ours(recipe), "usual": usual(Path(folder))})
        bytes_each = sum(path.stat().st_size for path in Path(folder, "train").rglob("*.jpg")) // IMAGES
    document = {
        "command": "python benchmarks/data_path.py",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "jpeg": {"width": WIDTH, "height": HEIGHT, "bytes": bytes_each},
        "images_per_processor_second": {name: round(IMAGES / median(each), 1) for name, each in seconds.items()},
        "ratio": round(median(map(truediv, seconds["usual"], seconds["ours"])), 3),
        "wanted": 1.5,
    }
    out = Path(__file__).parent / "results" / "data_path.json"
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def write_jpegs(folder: Path) -> None:
    """Pictures with structure at all scales, whose files have about the size of ImageNet's at this many pixels."""
    random_numbers = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("val", 1)):
        (folder / split / "a").mkdir(parents=True)
        for number in range(count):
            pixels = np.zeros((HEIGHT, WIDTH, 3), np.float32)
            for cells, strength in ((4, 90), (16, 40), (64, 20), (256, 12)):
                coarse = random_numbers.normal(0, strength, (cells * 3 // 4, cells, 3)).astype(np.float32)
                layers = [
                    Image.fromarray(coarse[..., c]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for c in range(3)
                ]
                pixels += np.stack([np.asarray(layer) for layer in layers], axis=2)
            image = Image.fromarray((pixels + 120).clip(0, 255).astype(np.uint8))
            image.save(folder / split / "a" / f"{number}.jpg", quality=92)


def ours(recipe: Recipe) -> Callable[[], None]:
    """An epoch of our batches, normalised."""
    batches = Batches(recipe, load(recipe.data, "train"))

    def epoch() -> None:
        for step in range(IMAGES // BATCH):
            for view in batches[step].views:
                recipe.preprocessing(view)

    return epoch


class Blur:
    """MoCo v2's."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Pillow's Gaussian of a random radius."""
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def usual_transforms() -> tuple[transforms.Compose, transforms.Compose]:
    """CGH's weak and strong transform, as its released code composes them from torchvision's."""
    crop = transforms.RandomResizedCrop(224, scale=(0.2, 1.0))
    last = [
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    strong = [
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        transforms.RandomGrayscale(p=0.2),
        transforms.RandomApply([Blur()], p=0.5),
    ]
    return transforms.Compose([crop, *last]), transforms.Compose([crop, *strong, *last])


def usual(folder: Path) -> Callable[[], None]:
    """An epoch of the usual pipeline."""
    paths = sorted(folder.glob("train/a/*.jpg"))
    both = usual_transforms()

    def epoch() -> None:
        for start in range(0, IMAGES, BATCH):
            pairs = []
            for path in paths[start : start + BATCH]:
                with path.open("rb") as file:
                    image = Image.open(file).convert("RGB")
                pairs.append([transform(image) for transform in both])
            for views in zip(*pairs, strict=True):
                torch.stack(views)

    return epoch


def in_turn(epochs: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """The processor seconds of each in each round, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(ROUNDS + 1):
        for name, epoch in epochs.items():
            start = time.process_time()
            epoch()
            seconds[name].append(time.process_time() - start)
    return {name: values[1:] for name, values in seconds.items()}


if __name__ == "__main__":
    main()
