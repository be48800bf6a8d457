"""Squares of three colours in the layouts of COCO, VOC and YOLO, as people keep data of their own."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from cgh_bench.data.annotations import KEYPOINTS

CLASSES = ("red", "green", "blue")
SIDE = 64
COUNTS = {"train": 8, "val": 4}


def _scenes(split: str):
    """(pixels, [(class, left, top, side)]) of each image."""
    rng = np.random.default_rng(len(split))
    for number in range(COUNTS[split]):
        pixels = rng.integers(90, 110, (SIDE, SIDE, 3)).astype(np.uint8)
        squares = []
        for label in {number % 3, (number + 1) % 3}:
            left, top = (int(value) for value in rng.integers(0, SIDE // 2, 2))
            side = int(rng.integers(20, 30))
            pixels[top : top + side, left : left + side] = 0
            pixels[top : top + side, left : left + side, label] = 220
            squares.append((label, left, top, side))
        yield pixels, squares


def _corners(left: int, top: int, side: int) -> list[int]:
    return [left, top, left + side, top, left + side, top + side, left, top + side]


def coco(folder: Path, masks: bool = True, keypoints: bool = False) -> Path:
    """`{train,val}/N.jpg` and `annotations/instances_{train,val}.json`: ids with gaps, the second mask a run length."""
    (folder / "annotations").mkdir(parents=True)
    for split in COUNTS:
        (folder / split).mkdir()
        images, annotations = [], []
        for number, (pixels, squares) in enumerate(_scenes(split)):
            Image.fromarray(pixels).save(folder / split / f"{number}.jpg", quality=95)
            images.append({"id": f"i{number}", "file_name": f"{number}.jpg", "width": SIDE, "height": SIDE})
            for place, (label, left, top, side) in enumerate(squares):
                line = {"id": len(annotations), "image_id": f"i{number}", "category_id": 5 * label}
                line |= {"bbox": [left, top, side, side]}
                if keypoints:
                    line |= {"keypoints": [left + 1, top + 1, 2] * len(KEYPOINTS), "num_keypoints": len(KEYPOINTS)}
                if masks and place == 0:
                    line["segmentation"] = [_corners(left, top, side)]
                elif masks:
                    mask = np.zeros((SIDE, SIDE), bool)
                    mask[top : top + side, left : left + side] = True
                    flat = np.concatenate([[False], mask.ravel(order="F")])
                    turns = np.flatnonzero(flat[1:] != flat[:-1])
                    counts = np.diff([0, *turns, mask.size]).tolist()
                    line["segmentation"] = {"size": [SIDE, SIDE], "counts": counts}
                annotations.append(line)
        categories = [{"id": 5 * number, "name": name} for number, name in enumerate(CLASSES)]
        for category in categories if keypoints else ():
            category["keypoints"] = list(KEYPOINTS)
        document = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(document))
    return folder


def voc(folder: Path) -> Path:
    """`JPEGImages`, `Annotations` and `ImageSets/Main/{train,val}.txt`."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split in COUNTS:
        names = []
        for number, (pixels, squares) in enumerate(_scenes(split)):
            names.append(f"{split}_{number}")
            Image.fromarray(pixels).save(folder / f"JPEGImages/{names[-1]}.jpg", quality=95)
            objects = "".join(
                f"<object><name>{CLASSES[label]}</name><difficult>0</difficult><bndbox><xmin>{left + 1}</xmin>"
                f"<ymin>{top + 1}</ymin><xmax>{left + side}</xmax><ymax>{top + side}</ymax></bndbox></object>"
                for label, left, top, side in squares
            )
            size = f"<size><width>{SIDE}</width><height>{SIDE}</height></size>"
            (folder / f"Annotations/{names[-1]}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(names))
    return folder


def yolo(folder: Path, polygons: bool = False) -> Path:
    """`data.yaml`, `images/{train,val}` and `labels/{train,val}`."""
    for split in COUNTS:
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number, (pixels, squares) in enumerate(_scenes(split)):
            Image.fromarray(pixels).save(folder / f"images/{split}/{number}.jpg", quality=95)
            lines = []
            for label, left, top, side in squares:
                box = [left + side / 2, top + side / 2, side, side]
                lines.append(
                    f"{label} " + " ".join(f"{n / SIDE:.8f}" for n in (_corners(left, top, side) if polygons else box))
                )
            (folder / f"labels/{split}/{number}.txt").write_text("\n".join(lines))
    names = "\n".join(f"  {number}: {name}" for number, name in enumerate(CLASSES))
    (folder / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}\n")
    return folder
