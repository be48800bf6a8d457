"""Images of the user's own with a mask each: every file checked, and listed for the framework in the cache."""

import hashlib
import json
from functools import partial
from pathlib import Path

from cgh_bench.core.config import fingerprint
from cgh_bench.core.files import write_text
from cgh_bench.data import find_folder
from cgh_bench.data.annotations import class_map
from cgh_bench.data.dense import Own
from cgh_bench.data.layout import Checked, compare_splits, facts, image_facts
from cgh_bench.data.segmented import Paths, own_files, own_places


def is_folder_of_maps(name: str) -> bool:
    """Whether the folder has images and masks of a split."""
    folder = find_folder(name)
    return folder is not None and any(all(map(Path.is_dir, both)) for both in own_places(folder).values())


def look(name: str, cache: Path) -> tuple[Checked, Own | None]:
    """What is found in the folder `name` of images and masks, and where they are if they can be used.

    Raises:
        UserError: a split, a mask, an image or the names of the classes are absent.
    """
    folder = find_folder(name)
    assert folder is not None
    folder = folder.absolute()
    classes, splits = own_files(folder)
    found, pictures, digests = Checked(), dict[str, dict[str, str]](), dict[str, str]()
    for split, paths in splits.items():
        lines, pictures[split] = _read(folder, paths, len(classes), found, cache)
        digests[split] = fingerprint([classes, split, sorted(lines)])
        found.notes.append(f"{split}: {len(paths):,} images with their masks, {len(classes)} classes")
    compare_splits(found, pictures)
    if found.problems:
        return found, None
    told = {
        "kind": "maps",
        "classes": classes,
        **{split: [[str(image), str(mask)] for image, mask in paths] for split, paths in splits.items()},
    }
    text = json.dumps(told)
    file = (
        cache.absolute() / "own" / hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16] / "data.json"
    )
    if not file.exists():
        write_text(file, text)
    content = fingerprint(list(digests.values()))
    return found, Own("maps", folder, file, classes, len(splits["train"]), content, digests["train"])


def _read(folder: Path, paths: Paths, classes: int, found: Checked, cache: Path) -> tuple[list[str], dict[str, str]]:
    """A line for each good image with its mask, and the digests of the images; what is wrong is added to `found`."""
    images, masks = ([str(both[place].relative_to(folder)) for both in paths] for place in (0, 1))
    seen = image_facts(folder, images, cache)
    maps = facts(folder, masks, cache, partial(class_map, classes=classes), str((classes, False)))
    lines, pictures = [], {}
    for (image, mask), one, other in zip(paths, seen, maps, strict=True):
        found.problems += [f"{path} {fault}" for path, each in ((image, one), (mask, other)) for fault in each["wrong"]]
        if one["wrong"] or other["wrong"]:
            continue
        if one["size"] != other["size"]:
            sizes = ["×".join(map(str, each["size"])) for each in (one, other)]
            found.problems.append(f"{mask} is {sizes[1]} pixels, its image {sizes[0]}; both must be of one size")
        lines.append(f"{image.stem} {one['digest']} {other['digest']}")
        pictures[str(image.relative_to(folder))] = one["digest"]
    return lines, pictures
