"""Four kinds of small picture that a random backbone tells apart, held in memory."""

import numpy as np

from cgh_bench.data.image_set import DataPair, GreyImages

CLASSES = ("a", "b", "c", "d")


def toy_pair(train: int = 40, val: int = 24, side: int = 32) -> tuple[GreyImages, GreyImages]:
    """Noise under a ramp whose slope is the class; 10 images of each to train on."""
    return _toy("train", train, side), _toy("val", val, side)


def toy_data(train: int = 40, val: int = 24, side: int = 32) -> DataPair:
    """The same as a dataset."""
    return DataPair("toy", *toy_pair(train, val, side))


def _toy(split: str, n: int, side: int) -> GreyImages:
    labels = np.arange(n) % len(CLASSES)
    noise = np.random.default_rng(len(split)).integers(0, 110, (n, side, side))
    ramp = (labels * 45)[:, None, None] * np.linspace(0, 1, side)
    return GreyImages(f"toy/{split}", CLASSES, labels, f"{split}{n}", (noise + ramp).astype(np.uint8))
