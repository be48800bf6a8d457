"""VOC's form: one XML file per image, with `ImageSets/Main/{train,val}.txt`, or beside the images of each split.

Corners count from 1 and are inside, as VOC's. Difficult objects are trained on; in val they count neither way.
"""

from pathlib import Path

from cgh_bench.data.annotations import CORNERS, Facts, read_voc, voc_faults
from cgh_bench.data.folder import SUFFIXES
from cgh_bench.data.image_set import Split
from cgh_bench.data.own import WORDS, Format, Said, categories, numbered

LISTS: tuple[dict[Split, str], ...] = (
    {"train": "train", "val": "val"},
    {"train": "trainval", "val": "test"},
    {"train": "train", "val": "test"},
)
"""The lists of `ImageSets/Main` for train and val; the first pair that is there is used."""
Files = list[tuple[Path, Path]]
"""Each XML file, and the folder of its image."""


def _splits(folder: Path) -> dict[Split, tuple[Path, Files]]:
    """What says which images are in each split, and their files; empty if it is not of this form."""
    if (folder / "Annotations").is_dir():
        for pair in LISTS:
            lists = {split: folder / f"ImageSets/Main/{name}.txt" for split, name in pair.items()}
            if all(path.is_file() for path in lists.values()):
                return {split: (path, _of_list(folder, path)) for split, path in lists.items()}
    found: dict[Split, tuple[Path, Files]] = {}
    for split, names in WORDS.items():
        for beside in (folder / name for name in names):
            if split not in found and (files := sorted(beside.glob("*.xml"))):
                found[split] = beside, [(path, beside) for path in files]
    return found if len(found) == len(WORDS) else {}


def _of_list(folder: Path, listed: Path) -> Files:
    images = next((folder / name for name in ("JPEGImages", "images") if (folder / name).is_dir()), folder)
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
    return [(folder / "Annotations" / f"{line.split()[0]}.xml", images) for line in lines if line.strip()]


def _read(folder: Path, cache: Path | None) -> dict[Split, Said]:
    splits = _splits(folder)
    read = {path: read_voc(path) for _, files in splits.values() for path, _ in files}
    named = {
        split: {str(item["name"]) for path, _ in files for item in read[path][1]}
        for split, (_, files) in splits.items()
    }
    names = [*sorted(named["train"]), *sorted(named["val"] - named["train"])]
    found = {}
    for split, (source, files) in splits.items():
        known = [name for name in names if name in named["train"] or split == "val"]
        found[split] = Said(source, {"images": [], "annotations": [], "categories": categories(known)})
        _fill(found[split], files, read, known, scored=split == "val")
    return found


def _fill(
    said: Said,
    files: Files,
    read: dict[Path, tuple[list[str], list[dict[str, str | None]], list[str]]],
    names: list[str],
    scored: bool,
) -> None:
    """Add the images and their objects, or what is wrong with them."""
    folders = {folder for _, folder in files}
    there = {
        folder: {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES} for folder in folders
    }
    lines: list[Facts] = []
    for number, (path, folder) in enumerate(files, start=1):
        size, objects, faults = read[path]
        if not faults and not all(map(str.isdecimal, size)):
            faults = ["has no width and height in its size"]
        faults = [*faults, *(f for place, item in enumerate(objects, 1) for f in voc_faults(place, item, names, False))]
        if not faults and path.stem not in there[folder]:
            faults = [f"has no image of its name in {folder}"]
        said.wrong += [f"{path} {fault}" for fault in faults]
        if not faults:
            sides = dict(zip(("width", "height"), map(int, size), strict=True))
            said.document["images"].append({"id": number, "file_name": str(there[folder][path.stem]), **sides})
            lines += [_line(number, item, names, scored) for item in objects]
    said.document["annotations"] = numbered(lines)


def _line(image: int, item: dict[str, str | None], names: list[str], scored: bool) -> Facts:
    left, top, right, bottom = (float(item[f"bndbox/{corner}"] or 0) for corner in CORNERS)
    return {
        "image_id": image,
        "category_id": 1 + names.index(str(item["name"])),
        "bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1],
        "iscrowd": int(scored and item["difficult"] == "1"),
    }


FORMATS = {
    "VOC": Format(
        "Annotations/*.xml with ImageSets/Main/{train,val}.txt, or {train,val}/*.xml beside images",
        lambda folder: bool(_splits(folder)),
        _read,
    )
}
