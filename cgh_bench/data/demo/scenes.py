"""`animal_scenes` as files: the COCO JSON, images and maps that mmdetection, mmsegmentation and detectron2 read."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import alone_in, scratch
from cgh_bench.core.progress import progress
from cgh_bench.data.demo.composition import Scene, SceneSettings, compose
from cgh_bench.data.demo.photographs import PHOTOGRAPHS
from cgh_bench.data.demo.silhouettes import CLASSES, SHA256, SOURCE
from cgh_bench.data.image_set import DetectionScenes, Split, content_fingerprint

SETTINGS = SceneSettings()
# To be raised when the code makes other scenes from the same settings: folders made before are then made anew.
GENERATOR_VERSION = 2
NAME = "animal_scenes"


def write_scenes(out: Path, settings: SceneSettings = SETTINGS) -> Path:
    """Make the dataset in the folder `out`, or find it there already made by these settings, and return `out`.

    Below it: `{train,val}/images/000001.png`, `{train,val}/annotations.json` (COCO instances; boxes and
    run-length encoded masks of the visible pixels; category 1 … 10), `{train,val}/masks/000001.png` (uint8: 0
    background, 1 … 10 animal) and `meta.json`. The folder appears whole or not at all.

    Raises:
        UserError: `out` holds something else, which is not touched, or the packages with the pictures are absent.
    """
    recipe = fingerprint([GENERATOR_VERSION, settings, SHA256, PHOTOGRAPHS])
    if _complete(out, recipe):
        return out
    with alone_in(out, wait=True, tidy=True):  # several evaluations may start with the same scenes
        if not _complete(out, recipe):
            _make(out, recipe, settings)
    return out


def _make(out: Path, recipe: str, settings: SceneSettings) -> None:
    with scratch(out.parent) as folder:
        made = folder / "made"
        made.mkdir()
        contents = [_write_split(made / split, _shown(split, settings)) for split in get_args(Split)]
        meta = _meta(contents, recipe, settings) | {"files": _files_digest(made)}
        (made / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        if out.exists():
            out.rename(folder / "old")
        made.rename(out)


def _complete(out: Path, recipe: str) -> bool:
    """Whether `out` holds the dataset of this `recipe`, every file as it was written."""
    if not out.exists():
        return False
    try:
        meta = json.loads((out / "meta.json").read_text(encoding="utf-8"))
        ours = meta["name"] == NAME
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out} contains files other than {NAME}; name another folder, or remove it")
    return bool(ours and meta.get("recipe") == recipe and meta.get("files") == _files_digest(out))


def _shown(split: Split, settings: SceneSettings) -> Iterator[Scene]:
    """The scenes of a split, with a progress bar as they are made."""
    total = settings.val_scenes if split == "val" else settings.train_scenes
    with progress(f"making {NAME}/{split}", total) as tick:
        for number, scene in enumerate(compose(split, settings), start=1):
            yield scene
            tick(number)


def _write_split(folder: Path, scenes: Iterable[Scene]) -> dict[str, Any]:
    """Write one split; returns what `meta.json` says of it."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    digest = hashlib.sha256()
    for number, scene in enumerate(scenes, start=1):
        file = f"{number:06d}.png"
        Image.fromarray(scene.image).save(folder / "images" / file, compress_level=1)  # thrice as fast, a little larger
        Image.fromarray(scene.semantic()).save(folder / "masks" / file)
        height, width = scene.owner.shape
        images.append({"id": number, "file_name": file, "width": width, "height": height})
        for mask, label in zip(scene.masks(), scene.labels, strict=True):
            annotations.append(_annotation(len(annotations) + 1, number, mask, int(label)))
        digest.update(content_fingerprint(CLASSES, scene.image, scene.owner, scene.labels).encode())
    categories = [{"id": 1 + label, "name": name, "supercategory": "animal"} for label, name in enumerate(CLASSES)]
    coco = {"info": {"description": NAME}, "licenses": [], "images": images, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(coco | {"categories": categories}), encoding="utf-8")
    counts = np.bincount([a["category_id"] - 1 for a in annotations], minlength=len(CLASSES)).tolist()
    animals = dict(zip(CLASSES, counts, strict=True))
    return {"split": folder.name, "scenes": len(images), "animals": animals, "fingerprint": digest.hexdigest()[:16]}


def _annotation(number: int, image: int, mask: NDArray[np.bool_], label: int) -> dict[str, Any]:
    """The COCO annotation of one (H, W) bool `mask`: its box is [left, top, width, height] in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "id": number,
        "image_id": image,
        "category_id": 1 + label,
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "area": int(mask.sum()),
        "segmentation": {"size": list(mask.shape), "counts": _run_lengths(mask)},
        "iscrowd": 0,
    }


def _run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths: column by column, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def _meta(contents: list[dict[str, Any]], recipe: str, settings: SceneSettings) -> dict[str, Any]:
    return {
        "name": NAME,
        "fingerprint": fingerprint([content["fingerprint"] for content in contents]),
        "recipe": recipe,
        "classes": list(CLASSES),
        "counts": {c["split"]: {"scenes": c["scenes"], "animals": c["animals"]} for c in contents},
        "settings": asdict(settings),
        "sources": {"silhouettes": SOURCE, "photographs": [asdict(photograph) for photograph in PHOTOGRAPHS]},
    }


def _files_digest(folder: Path) -> str:
    """SHA-256 over the paths and bytes of every file below `folder` but `meta.json`."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "meta.json"):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


CATALOG = {
    NAME: DetectionScenes(
        description="128×128 scenes of one to four animals: boxes, instance masks, semantic maps; 1,500 train, 300 val",
        source=f"{SOURCE}; photographs in the wheels of scikit-image and scikit-learn (docs/data.md lists them)",
        write=write_scenes,
    )
}
