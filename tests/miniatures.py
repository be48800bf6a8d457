"""Published data sets in miniature: the embedded scenes in the layout of each, so that its real files are read.

The i-th animal plays the i-th class of the set (Cityscapes has only eight with instances: the last two play the first).
Each function makes the set below `root`, which is to be `CGH_DATA`, of the scenes that `write_scenes` left in `scenes`.
"""

import json
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from pycocotools import mask as run_length

from cgh_bench.data.annotations import KEYPOINTS
from cgh_bench.data.demo.composition import SceneSettings
from cgh_bench.data.layout import SUBSET
from cgh_bench.data.layouts import cityscapes as cityscapes_layout
from cgh_bench.data.layouts import coco as coco_layout
from cgh_bench.data.layouts import voc as voc_layout
from cgh_bench.data.videos import Videos

TINY = SceneSettings(train_scenes=8, val_scenes=4, side=96, most_animals=2)
INSTANCE_IDS = (24, 25, 26, 27, 28, 31, 32, 33)  # Cityscapes' label ids of its eight classes with instances

SEQUENCE = "zurich_000000_"  # before the number of the frame in each of Cityscapes' names


def coco(scenes: Path, root: Path) -> None:
    """`coco/{train,val}2017/*.png` and the JSON with COCO's eighty classes."""
    folder = _new(root / "coco")
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        _copy(scenes, split, folder / f"{split}2017", ".png")
        truth = _truth(scenes, split)
        truth["categories"] = [{"id": i, "name": name} for i, name in enumerate(coco_layout.CLASSES, start=1)]
        _write(folder / f"annotations/instances_{split}2017.json", truth)


def coco_keypoints(scenes: Path, root: Path) -> None:
    """`person_keypoints_*.json` beside what `coco` makes: animals are persons, whose keypoints are on a diagonal."""
    for split in ("train", "val"):
        truth = _truth(scenes, split)
        truth["categories"] = [{"id": 1, "name": "person", "keypoints": list(KEYPOINTS), "skeleton": [[1, 2]]}]
        for line in truth["annotations"]:
            left, top, width, height = line["bbox"]
            shares = [(number + 1) / (len(KEYPOINTS) + 1) for number in range(len(KEYPOINTS))]
            points = [(round(left + share * width), round(top + share * height), 2) for share in shares]
            line |= {"category_id": 1, "keypoints": [*chain(*points)], "num_keypoints": len(KEYPOINTS)}
        _write(root / f"coco/annotations/person_keypoints_{split}2017.json", truth)


def lvis(scenes: Path, root: Path) -> None:
    """`lvis_v1_*.json` beside what `coco` makes; masks are the boxes, and classes common, frequent, rare in turn."""
    for split in ("train", "val"):
        truth = _truth(scenes, split)
        truth["categories"] = [{"id": i, "name": f"class {i}", "frequency": "rcf"[i % 3]} for i in range(1, 1204)]
        for image in truth["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/{split}2017/{image.pop('file_name')}"
            image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        for place, line in enumerate(truth["annotations"]):
            left, top, width, height = line["bbox"]
            right, bottom = left + width, top + height
            line |= {"category_id": 1 + place % 3, "area": width * height}
            line["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
            del line["iscrowd"]
        _write(root / f"coco/annotations/lvis_v1_{split}.json", truth)


def voc(scenes: Path, root: Path) -> None:
    """`VOCdevkit/VOC2007` and `VOC2012` with boxes, maps and the additional maps; every fourth object is difficult."""
    devkit = _new(root / "VOCdevkit")
    for year, main in (
        ("VOC2007", {"trainval": "train", "test": "val"}),
        ("VOC2012", {"trainval": "train", "val": "val"}),
    ):
        for listed, split in main.items():
            names = _copy(scenes, split, devkit / year / "JPEGImages", ".jpg", prefix=f"{split}_")
            _write(devkit / year / f"ImageSets/Main/{listed}.txt", "\n".join(names))
            _write_boxes(_truth(scenes, split), devkit / year / "Annotations", f"{split}_")
    names = sorted(path.stem for path in (devkit / "VOC2012/JPEGImages").glob("train_*"))
    split_names = {"train": names[::2], "aug": names[1::2]}
    split_names["val"] = sorted(path.stem for path in (devkit / "VOC2012/JPEGImages").glob("val_*"))
    for listed, chosen in split_names.items():
        _write(devkit / f"VOC2012/ImageSets/Segmentation/{listed}.txt", "\n".join(chosen))
        maps = "SegmentationClassAug" if listed == "aug" else "SegmentationClass"
        for name in chosen:
            split, number = name.split("_")
            _save(_map(scenes, split, number), devkit / "VOC2012" / maps / f"{name}.png")


def cityscapes(scenes: Path, root: Path) -> None:
    """`cityscapes/leftImg8bit` and `gtFine` (train ids, label ids, instance ids), and mmdetection's JSON of them."""
    folder = _new(root / "cityscapes")
    for split in ("train", "val"):
        names = _copy(scenes, split, folder / f"leftImg8bit/{split}/zurich", "_leftImg8bit.png", prefix=SEQUENCE)
        truth = _truth(scenes, split)
        for image, name in zip(truth["images"], names, strict=True):
            train_ids = _map(scenes, split, name.removeprefix(SEQUENCE))
            truth_of_image = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
            stem = folder / f"gtFine/{split}/zurich/{name}_gtFine"
            _save(train_ids, Path(f"{stem}_labelTrainIds.png"))
            _save(_instances(truth_of_image, train_ids.shape), Path(f"{stem}_instanceIds.png"))
            image["file_name"] = f"zurich/{name}_leftImg8bit.png"
        ids = dict(zip(INSTANCE_IDS, cityscapes_layout.CLASSES_WITH_INSTANCES, strict=True))
        truth["categories"] = [{"id": i, "name": name} for i, name in ids.items()]
        for annotation in truth["annotations"]:
            annotation["category_id"] = INSTANCE_IDS[(annotation["category_id"] - 1) % len(INSTANCE_IDS)]
        _write(folder / f"annotations/instancesonly_filtered_gtFine_{split}.json", truth)


def ade20k(scenes: Path, root: Path) -> None:
    """`ADEChallengeData2016/images` and `annotations`; 0 is no class, as there."""
    folder = _new(root / "ADEChallengeData2016")
    for split, name in (("train", "training"), ("val", "validation")):
        for number in _copy(scenes, split, folder / "images" / name, ".jpg"):
            _save(_map(scenes, split, number), folder / f"annotations/{name}/{number}.png")


def davis(videos: Videos, root: Path) -> list[str]:
    """DAVIS 2017's layout of the videos; their names."""
    names = [video.name.replace(" ", "_") for video in videos.videos]
    (root / "DAVIS/ImageSets/2017").mkdir(parents=True)
    (root / "DAVIS/ImageSets/2017/val.txt").write_text("\n".join(names))
    (root / "DAVIS/SUBSET").touch()
    for name, video in zip(names, videos.videos, strict=True):
        for part in ("JPEGImages", "Annotations"):
            (root / f"DAVIS/{part}/480p/{name}").mkdir(parents=True)
        for index in range(len(video.frames)):
            image = Image.fromarray(video.frames.image(index).permute(1, 2, 0).numpy())
            image.save(root / f"DAVIS/JPEGImages/480p/{name}/{index:05d}.jpg", quality=95)
            Image.fromarray(video.owner(index)).save(root / f"DAVIS/Annotations/480p/{name}/{index:05d}.png")
    return names


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / SUBSET).touch()
    return folder


def _truth(scenes: Path, split: str) -> dict:
    return json.loads((scenes / split / "annotations.json").read_text())


def _map(scenes: Path, split: str, number: str) -> np.ndarray:
    """(H, W) uint8: 0 for background, else one more than the number of the animal."""
    return np.asarray(Image.open(scenes / split / "masks" / f"{number}.png"))


def _copy(scenes: Path, split: str, folder: Path, suffix: str, prefix: str = "") -> list[str]:
    """The images of a split under other names; what stands before the suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for path in sorted((scenes / split / "images").iterdir()):
        names.append(f"{prefix}{path.stem}")
        Image.open(path).convert("RGB").save(folder / f"{names[-1]}{suffix}", quality=95)
    return names


def _write_boxes(truth: dict, folder: Path, prefix: str) -> None:
    """One XML an image; corners count from 1 and are inside, as VOC's."""
    for image in truth["images"]:
        root = ElementTree.Element("annotation")
        size = ElementTree.SubElement(root, "size")
        for side in ("width", "height"):
            ElementTree.SubElement(size, side).text = str(image[side])
        ElementTree.SubElement(size, "depth").text = "3"
        for annotation in (a for a in truth["annotations"] if a["image_id"] == image["id"]):
            left, top, width, height = annotation["bbox"]
            item = ElementTree.SubElement(root, "object")
            words = {"pose": "Unspecified", "truncated": "0", "difficult": str(int(annotation["id"] % 4 == 0))}
            for key, value in {"name": voc_layout.CLASSES[annotation["category_id"] - 1], **words}.items():
                ElementTree.SubElement(item, key).text = value
            box = ElementTree.SubElement(item, "bndbox")
            corners = {"xmin": left + 1, "ymin": top + 1, "xmax": left + width, "ymax": top + height}
            for key, value in corners.items():
                ElementTree.SubElement(box, key).text = str(value)
        stem = Path(image["file_name"]).stem
        _write(folder / f"{prefix}{stem}.xml", ElementTree.tostring(root, encoding="unicode"))


def _instances(annotations: list[dict], shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) uint16: 1000 times the label id plus a number; 0 for background."""
    ids = np.zeros(shape, dtype=np.uint16)
    for number, annotation in enumerate(annotations):
        rle = run_length.frPyObjects(annotation["segmentation"], *shape)
        label = INSTANCE_IDS[(annotation["category_id"] - 1) % len(INSTANCE_IDS)]
        ids[run_length.decode(rle).astype(bool)] = 1000 * label + number
    return ids


def _save(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def _write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
