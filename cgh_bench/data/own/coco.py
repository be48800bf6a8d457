"""COCO's form: one JSON per split, whatever it is called, with the images beside or around it."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cgh_bench.core.errors import UserError
from cgh_bench.data.annotations import Facts, is_number, read_coco
from cgh_bench.data.image_set import Split
from cgh_bench.data.own import WORDS, Document, Format, Said

EXPLICIT = "--data images=DIR,train=A.json,val=B.json names the files"


def _files(folder: Path) -> dict[Split, list[Path]]:
    """The JSON files of each split, by the words in their paths; COCO's own `instances_*` before its other tasks'."""
    paths = sorted(path for pattern in ("*.json", "*/*.json", "*/*/*.json") for path in folder.glob(pattern))
    words = {path: set(re.findall("[a-z]+", str(path.relative_to(folder)).lower())) for path in paths if _is_coco(path)}
    found: dict[Split, list[Path]] = {}
    for split, names in WORDS.items():
        mine = next(filter(None, ([path for path, said in words.items() if name in said] for name in names)), [])
        found[split] = [path for path in mine if "instances" in words[path]] or mine
    return found


def _is_coco(path: Path) -> bool:
    content = path.read_bytes()
    return b'"images"' in content or b'"annotations"' in content


def _fits(folder: Path) -> bool:
    return all(_files(folder).values())


def _read(folder: Path, cache: Path | None) -> dict[Split, Said]:
    files = _files(folder)
    for split, found in files.items():
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(folder)) for path in found[:4])
            raise UserError(f"{folder} has {len(found)} files for {split} ({names}, …); {EXPLICIT}")
    return read_files(folder, {split: found for split, (found,) in files.items()})


def read_files(folder: Path, files: dict[Split, Path]) -> dict[Split, Said]:
    """What the JSON file of each split says; its images are looked for below `folder` and beside the file.

    Raises:
        UserError: the images are in none of the usual places.
    """
    return {split: _said(folder, split, file) for split, file in files.items()}


def _said(folder: Path, split: Split, file: Path) -> Said:
    document, wrong = read_coco(file)
    wrong = wrong or list(_unnamed(document))
    if wrong:
        return Said(file, document, [f"{file} {fault}" for fault in wrong])
    names = [image["file_name"] for image in document["images"]]
    places = list(_places(folder, split, file))
    place = next((each for each in places if _is_file(each / names[0])), None)
    if place is None:
        where = ", ".join(map(str, places[:4]))
        raise UserError(f"{names[0]}, the first image of {file}, was not found in {where}, …; {EXPLICIT}")
    images = [{**image, "file_name": str(place / image["file_name"])} for image in document["images"]]
    annotations = [_complete(line) for line in document["annotations"]]
    return Said(file, {**document, "images": images, "annotations": annotations})


def _unnamed(document: Document) -> Iterator[str]:
    """Problems with the names of images and classes: missing or repeated."""
    files = [image.get("file_name") for image in document["images"]]
    classes = [category.get("name") for category in document["categories"]]
    if not files:
        yield "lists no image"
    if not all(isinstance(name, str) and name and "\0" not in name for name in files):
        yield "has an image without file_name"
    if not all(isinstance(name, str) and name for name in classes):
        yield "has a category without a name"
    elif repeated := [name for name, count in Counter(classes).items() if count > 1]:
        yield f"has several categories named {repeated[0]!r}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name of others' that no file can have
        return False


def _places(folder: Path, split: Split, file: Path) -> Iterator[Path]:
    """Where exporters put the images of a JSON file."""
    names = dict.fromkeys((file.stem.removeprefix("instances_"), file.parent.name, *WORDS[split]))
    yield folder
    yield from (file.parent, file.parent / "images", folder / "images")
    for name in names:
        yield from (folder / name, folder / "images" / name, folder / name / "images")


def _complete(line: Facts) -> Facts:
    """An annotation with the fields that many exporters leave out: no crowd, no mask, the area of the box."""
    line = {"iscrowd": 0, **line, "segmentation": line.get("segmentation") or []}
    box = line.get("bbox")
    if "area" not in line and isinstance(box, list) and len(box) == 4 and all(map(is_number, box)):
        line["area"] = box[2] * box[3]
    return line


FORMATS = {
    "COCO": Format("a JSON file for train and one for val, in its root, annotations/ or beside images", _fits, _read)
}
