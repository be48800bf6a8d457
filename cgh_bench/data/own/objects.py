"""Boxes and masks of the user's own, of any format: checked, and written as two COCO files to the cache."""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import write_text
from cgh_bench.core.registry import registered
from cgh_bench.data import find_folder
from cgh_bench.data.annotations import KEYPOINTS, LEAST_POLYGON, SHOWN, Facts, coco_facts, keypoint_fault
from cgh_bench.data.dense import Own
from cgh_bench.data.image_set import Split
from cgh_bench.data.layout import Checked, Layout, Part, check
from cgh_bench.data.own import Document, Format, Said, categories
from cgh_bench.data.own.coco import read_files

KEYS = ("images", "train", "val")
"""What names the files of COCO's form one by one."""
KEPT = ("bbox", "area", "iscrowd", "segmentation")
"""What is kept of an annotation."""
POINTS = ("keypoints", "num_keypoints")
"""What is kept, too, of an annotation with as many keypoints as COCO's persons have."""
BEYOND = 2
"""Pixels that a box may stand over the edge of its image: exporters round."""
NAMED = 8
"""The number of classes that a message names at most."""


def format_of(name: str) -> str:
    """The format of the folder, or of the files `images=DIR,train=A.json,val=B.json`; empty if it has none."""
    if "=" in name:
        return "COCO"
    folder = find_folder(name)
    return next((title for title, each in _formats().items() if folder and each.fits(folder)), "")


def look(name: str, cache: Path) -> tuple[Checked, Own | None]:
    """What is found in the files that `name` means to `format_of`, and where they are if they can be used.

    Raises:
        UserError: a split or its images cannot be found, or it is unclear which they are.
    """
    title = format_of(name)
    said = _explicit(name) if "=" in name else _formats()[title].read(_folder(name), cache)
    found = Checked(problems=[fault for one in said.values() for fault in one.wrong or _faults(one)])
    found.problems += [] if found.problems else _differing(said)
    if found.problems:
        return found, None
    found.notes = [f"{title}'s form", *(note for split, one in said.items() for note in _notes(split, one))]
    paths = [Path(image["file_name"]).parent for one in said.values() for image in one.document["images"]]
    root = Path(os.path.commonpath(paths))
    classes = tuple(category["name"] for category in said["train"].document["categories"])
    folder = _written(said, classes, root, cache)
    parts = tuple(
        Part("{}", str(folder / f"{split}.json"), len(one.document["images"]), classes, split=split)
        for split, one in said.items()
    )
    checked = check("own objects", Layout(str(root), parts, 0.0, ""), Path(), cache)
    for split, one in said.items():  # theirs is to be fixed, not ours
        checked.problems = [each.replace(str(folder / f"{split}.json"), str(one.source)) for each in checked.problems]
    checked.notes = [*found.notes, *checked.notes]
    train = said["train"].document["images"]
    bare = next((fault for one in said.values() for fault in _without_mask(one)), "")
    pointless = next((fault for one in said.values() for fault in _without_keypoints(one)), "")
    content = fingerprint([checked.train, checked.val])
    own = Own("objects", root, folder / "data.json", classes, len(train), content, checked.train, bare, pointless)
    return checked, None if checked.problems else own


def _formats() -> dict[str, Format]:
    return registered("cgh_bench.data.own", "FORMATS")


def _folder(name: str) -> Path:
    folder = find_folder(name)
    assert folder is not None
    return folder.absolute()


def _explicit(name: str) -> dict[Split, Said]:
    given = dict(part.partition("=")[::2] for part in name.split(","))
    if tuple(sorted(given)) != KEYS or not all(given.values()):
        raise UserError(f"--data {name}: expected images=DIR,train=A.json,val=B.json")
    absent = [given[key] for key in KEYS if not (Path.is_dir if key == "images" else Path.is_file)(Path(given[key]))]
    if absent:
        raise UserError(f"--data {name}: {absent[0]} not found; expected images=DIR,train=A.json,val=B.json")
    return read_files(
        Path(given["images"]).absolute(),
        {"train": Path(given["train"]).absolute(), "val": Path(given["val"]).absolute()},
    )


def _faults(said: Said) -> list[str]:
    """What COCO's tools or a framework would stop at, or silently leave out."""
    names = [category["name"] for category in said.document["categories"]]
    wrong: list[str] = coco_facts(said.document, names, scored=False)["wrong"]
    wrong = wrong or list(_box_faults(said.document))
    if not wrong and all(line["iscrowd"] for line in said.document["annotations"]):
        wrong = [f"has no object in any of {len(said.document['images'])} images"]
    more = [f"has {len(wrong) - SHOWN} more such faults"] * (len(wrong) > SHOWN)
    return [f"{said.source} {fault}" for fault in [*wrong[:SHOWN], *more]]


def _box_faults(document: Document) -> Iterator[str]:
    images = {image["id"]: image for image in document["images"]}
    for line in document["annotations"]:
        left, top, width, height = line["bbox"]
        image, mask = images[line["image_id"]], line["segmentation"]
        sides = image["width"], image["height"]
        what = f"annotation {line['id']!r} on {image['file_name']}"
        if (width < 1 or height < 1 or line["area"] <= 0) and not line["iscrowd"]:
            yield f"{what} is empty: the box {line['bbox']} with the area {line['area']}"
        elif not all(
            a >= -BEYOND and a + b <= side + BEYOND
            for a, b, side in zip((left, top), (width, height), sides, strict=True)
        ):
            yield f"{what} has the box {line['bbox']}, which lies outside its {sides[0]}×{sides[1]} pixels"
        elif isinstance(mask, list) and any(len(polygon) < LEAST_POLYGON or len(polygon) % 2 for polygon in mask):
            yield f"{what} has a polygon of fewer than three points"
        elif isinstance(mask, dict) and isinstance(mask["counts"], list) and sum(mask["counts"]) != math.prod(sides):
            yield f"{what} has run lengths of {sum(mask['counts'])} pixels, not {math.prod(sides)}"


def _differing(said: dict[Split, Said]) -> Iterator[str]:
    """Classes that only val has. Those that only train has are noted: no object of theirs is looked for."""
    train, val = ([category["name"] for category in said[split].document["categories"]] for split in ("train", "val"))
    if extra := sorted(set(val) - set(train)):
        missing = sorted(set(train) - set(val))
        yield (
            f"{said['val'].source} has classes that {said['train'].source} has not: {_named(extra)}"
            + (f"; it lacks {_named(missing)}" if missing else "")
        )


def _named(names: list[str]) -> str:
    return ", ".join(map(repr, names[:NAMED])) + (f", … ({len(names)})" if len(names) > NAMED else "")


def _notes(split: Split, said: Said) -> Iterator[str]:
    document = said.document
    counts = Counter(line["category_id"] for line in document["annotations"])
    names = {category["id"]: category["name"] for category in document["categories"]}
    images, objects = len(document["images"]), len(document["annotations"])
    classes = _named([name for number, name in names.items() if counts[number]])
    yield f"{split}: {images:,} images, {objects:,} objects of {len(counts)} classes: {classes} ({said.source})"
    if absent := [name for number, name in names.items() if not counts[number]]:
        yield f"{split} has no object of {_named(absent)}"
    if pointed := sum(bool(line.get("num_keypoints")) for line in document["annotations"]):
        yield f"{split}: {pointed:,} objects have keypoints"
    if empty := images - len({line["image_id"] for line in document["annotations"]}):
        yield f"{split}: {empty:,} images have no object{'; they are not trained on' * (split == 'train')}"
    if crowds := sum(line["iscrowd"] for line in document["annotations"]):
        yield f"{split}: {crowds:,} crowds, which count neither way"
    if any(_run_lengths(document)) and not all(_run_lengths(document)):
        yield f"{split}: masks are polygons and run lengths; all are read as bitmaps"


def _run_lengths(document: Document) -> Iterator[bool]:
    objects = (line for line in document["annotations"] if line["segmentation"] and not line["iscrowd"])
    return (isinstance(line["segmentation"], dict) for line in objects)


def _without_mask(said: Said) -> Iterator[str]:
    for line in said.document["annotations"]:
        if not line["segmentation"]:
            yield f"annotation {line['id']!r} of {said.source}"


def _without_keypoints(said: Said) -> Iterator[str]:
    for category in said.document["categories"]:
        if category.get("keypoints") != list(KEYPOINTS):
            yield f"category {category['name']!r} of {said.source} has others, or none"
    for line in said.document["annotations"]:
        if fault := keypoint_fault(line):
            yield f"annotation {line['id']!r} of {said.source} {fault}"
    if not any(line.get("num_keypoints") for line in said.document["annotations"]):
        yield f"{said.source} marks none"


def _written(said: dict[Split, Said], classes: tuple[str, ...], root: Path, cache: Path) -> Path:
    """The folder in the cache with `train.json`, `val.json` and `data.json`, which are only written once."""
    documents: dict[str, str] = {
        split: json.dumps(_in_order(one.document, classes, root)) for split, one in said.items()
    }
    digest = hashlib.sha256("\0".join([str(root), *documents.values()]).encode(errors="surrogateescape")).hexdigest()
    folder = cache.absolute() / "own" / digest[:16]
    told = {
        "kind": "objects",
        "classes": classes,
        "images": str(root),
        **{split: str(folder / f"{split}.json") for split in documents},
        "run_lengths": any(any(_run_lengths(one.document)) for one in said.values()),
    }
    for name, text in {**documents, "data": json.dumps(told)}.items():
        if not (folder / f"{name}.json").exists():
            write_text(folder / f"{name}.json", text)
    return folder


def _in_order(document: Document, classes: tuple[str, ...], root: Path) -> Document:
    """The document with ids from 1, classes in the order of train, and file names below `root`."""
    category = {line["id"]: 1 + classes.index(line["name"]) for line in document["categories"]}
    number = {line["id"]: place for place, line in enumerate(document["images"], start=1)}
    images: list[Facts] = []
    for line in document["images"]:
        name = str(Path(line["file_name"]).relative_to(root))
        images.append({"id": number[line["id"]], "file_name": name, "width": line["width"], "height": line["height"]})
    annotations: list[Facts] = []
    for place, line in enumerate(document["annotations"], start=1):
        of = {"image_id": number[line["image_id"]], "category_id": category[line["category_id"]]}
        kept = KEPT if keypoint_fault(line) else (*KEPT, *POINTS)
        annotations.append({"id": place, **of, **{key: line[key] for key in kept}})
    return {"images": images, "annotations": annotations, "categories": categories(list(classes))}
