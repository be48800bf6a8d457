"""Folders of one's own for dense tasks: what a random network segments, and what it measures."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ground", "red", "green", "blue")


def write(folder: Path, train: int = 8, val: int = 3, side: int = 64) -> Path:
    """Squares of three colours on grey: `{train,val}/{images,masks}/N.png` and `classes.txt`.

    Each mask has a border of no class.
    """
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


def write_steps(folder: Path, train: int = 6, val: int = 2) -> Path:
    """Steps of depth that are as bright as they are near: `{train,val}/{images,depth,normals}/N.png`.

    Nothing is known of the border of each.
    """
    for split, count in (("train", train), ("val", val)):
        rng = np.random.default_rng(count)
        for name in ("images", "depth", "normals"):
            (folder / split / name).mkdir(parents=True)
        for number in range(count):
            metres = np.kron(rng.uniform(1, 8, (2, 2)), np.ones((24, 32)))
            image = np.repeat((255 - 25 * metres)[:, :, None], 3, axis=2)
            metres[:2] = 0
            normal = np.zeros((*metres.shape, 3))
            normal[2:] = np.where(metres[2:, :, None] > 4, [0, 0, -1.0], [0.6, 0, -0.8])
            Image.fromarray(image.astype(np.uint8)).save(folder / split / f"images/{number}.png")
            Image.fromarray((1000 * metres).astype(np.uint16)).save(folder / split / f"depth/{number}.png")
            colours = np.where(normal.any(axis=2, keepdims=True), 127.5 + 127.5 * normal, 0)
            Image.fromarray(np.rint(colours).astype(np.uint8)).save(folder / split / f"normals/{number}.png")
    return folder
