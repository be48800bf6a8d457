"""Squares of three colours on grey, in the layout of a folder of one's own: what a random network segments."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ground", "red", "green", "blue")


def write(folder: Path, train: int = 8, val: int = 3, side: int = 64) -> Path:
    """`{train,val}/{images,masks}/N.png` and `classes.txt`; each mask has a border of no class."""
    for split, count in (("train", train), ("val", val)):
        rng = np.random.default_rng(count)
        for name in ("images", "masks"):
            (folder / split / name).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(90, 110, (side, side, 3))
            mask = np.zeros((side, side), np.uint8)
            for label in rng.permutation(3)[:2]:
                top, left = rng.integers(0, side // 2, 2)
                part = np.s_[top : top + side // 2, left : left + side // 2]
                image[part] = rng.integers(0, 40, (side // 2, side // 2, 3))
                image[(*part, label)] += 200
                mask[part] = 1 + label
            mask[0] = 255
            Image.fromarray(image.astype(np.uint8)).save(folder / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(folder / split / "masks" / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return folder
