"""Look at every file of a dataset before it is used: `cgh-bench data check`."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cgh_bench.core.errors import UserError
from cgh_bench.core.files import write_text
from cgh_bench.core.progress import progress
from cgh_bench.data import catalog, dense, layout, load
from cgh_bench.data.image_set import DetectionScenes, ImageSet
from cgh_bench.data.layout import Checked
from cgh_bench.data.own import find

THREADS = 8
AT_A_TIME = 256
"""Images that are decoded between two steps of the progress."""
VERSION = 1
"""The version of what is remembered of a set."""


def check(name: str, root: Path, cache: Path) -> dict[str, Checked]:
    """What is found in each dataset that `name` means: one, or all that lie in a folder of that name.

    Args:
        name: as for `load`; or a dataset for detection or segmentation, by its name or its folder, or one of your own.
        root: where datasets live.
        cache: where what was found in files is remembered, until they change.

    Raises:
        UserError: there is no such dataset.
    """
    known = dense.layouts()
    if name in known:
        return {name: layout.check(name, known[name], root, cache)}
    if isinstance(catalog().get(name), DetectionScenes):
        return {name: Checked(notes=["bundled: made on this machine when needed"])}
    folder = Path(name).resolve()
    there = {each: found for each, found in known.items() if folder.is_dir() and found.folder == folder.name}
    if begun := {each: found for each, found in there.items() if _is_begun(found, folder)}:
        there = begun
    if there:
        return {each: layout.check(each, found, folder.parent, cache) for each, found in there.items()}
    if kinds := find.kinds(name):
        return {f"{name}, {kind}": _own(name, kind, cache) for kind in kinds}
    return {name: _images(name, root, cache)}


def _is_begun(found: layout.Layout, folder: Path) -> bool:
    """Whether annotations of any part are there, in a folder that several datasets share."""
    return any((folder / part.annotations.partition("{}")[0]).exists() for part in found.parts)


def _own(name: str, kind: dense.Kind, cache: Path) -> Checked:
    try:
        return find.look(name, kind, cache)[0]
    except UserError as error:
        return Checked([str(error)])


def _images(name: str, root: Path, cache: Path) -> Checked:
    """Labelled images: both splits, or the only one."""
    found, digests = Checked(), {}
    for split in ("train", "val"):
        try:
            images = load(name, "train" if split == "train" else "val", root, cache)
        except UserError as error:
            found.problems.append(str(error))
            continue
        seen = _of_set(images, cache)
        found.problems += seen["problems"]
        found.notes += _twice(images, seen["digests"])
        found.subset = found.subset or images.subset
        digests[split] = seen["digests"]
    if found.subset:
        found.notes.append(f"a subset: {found.subset}; its results are under a protocol of their own")
    if len(digests) == 2:
        shared = set(digests["train"]) & set(digests["val"])
        if shared and set(digests["val"]) == shared:
            found.problems.append(f"all {len(digests['val'])} val images of {name} are train images too")
        elif shared:
            found.notes.append(f"{len(shared)} val images of {name} are train images too")
    return found


def _of_set(images: ImageSet, cache: Path) -> dict[str, list[str]]:
    """`problems` of the images of a set, and `digests` of the pixels of those that can be read."""
    place = cache / "checked" / f"{images.fingerprint}.{VERSION}.json"
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    found: dict[str, list[str]] = {"problems": [], "digests": []}
    for digest, problem in _decoded(images):
        found["digests" if digest else "problems"].append(digest or problem)
    if not found["problems"]:
        write_text(place, json.dumps(found))
    return found


def _decoded(images: ImageSet) -> Iterator[tuple[str, str]]:
    """The digest of each image's pixels, or why it cannot be read."""

    def one(index: int) -> tuple[str, str]:
        try:
            pixels = images.image(index)
        except UserError as error:
            return "", str(error)
        content = str(tuple(pixels.shape)).encode() + pixels.contiguous().numpy().tobytes()
        return hashlib.blake2b(content, digest_size=16).hexdigest(), ""

    with ThreadPoolExecutor(THREADS) as pool, progress(f"checking {images.name}", len(images)) as tick:
        for start in range(0, len(images), AT_A_TIME):
            end = min(start + AT_A_TIME, len(images))
            yield from pool.map(one, range(start, end))
            tick(end)


def _twice(images: ImageSet, digests: list[str]) -> Iterator[str]:
    """A note on images that are in a set more than once."""
    first: dict[str, int] = {}
    again = []
    for index, digest in enumerate(digests):
        if first.setdefault(digest, index) != index and len(digests) == len(images):
            again.append((first[digest], index))
    if again:
        one, other = again[0]
        labels = images.labels
        differ = sum(bool((labels[a] != labels[b]).any()) for a, b in again)
        yield (
            f"{len(again)} images of {images.name} are there twice, {differ} of them with another label; the first: "
            f"{images.called(one)} and {images.called(other)}"
        )
