"""What a fetched dataset must look like on disk, checked file by file before any work, and its fingerprint."""

import hashlib
import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.core.files import sha256
from cgh_bench.data.contents import contents
from cgh_bench.data.decoding import UNDECODABLE

SUBSET = "SUBSET"
"""A file of this name in a set's folder says that fewer images than published are meant."""
IGNORED = 255
"""The value of a map's pixels that belong to no class."""
CORNERS = ("xmin", "ymin", "xmax", "ymax")
"""The sides of a box in VOC."""
LONGEST_NAME = 200
"""Characters of a name that an error repeats."""
MOST_BYTES_OF_CATEGORIES = 1_000_000
MOST_SPACE_AT_END = 1_000


@dataclass(frozen=True)
class Part:
    """Images and their annotations. Paths are below the set's folder; `{}` stands for an image's own name."""

    images: str
    annotations: str
    """One file an image (`.xml` of VOC, `.png` maps), or one for all (`.json` of COCO, whose file names fill `{}`)."""
    count: int
    """As published."""
    classes: tuple[str, ...] | int
    """What annotations may name; of maps, how many values from 0 on beside 255; 0: not looked at."""
    listed: str = ""
    """The file with the names of the images; else all that are there."""


@dataclass(frozen=True)
class Layout:
    """One dataset."""

    folder: str
    """Below `$CGH_DATA`."""
    parts: tuple[Part, ...]
    gigabytes: float
    """On disk, unpacked."""
    how: str
    """Where to get it, and what to do with it."""


def verify(name: str, layout: Layout, root: Path, cache: Path | None = None) -> str:
    """Check that the dataset below `root` is there and whole; its fingerprint, sixteen hex digits.

    The fingerprint covers the names and bytes of images and annotations; of maps the pixels, however they are packed.
    The order of lists does not enter. `cache` is where hashes of files are remembered.

    Raises:
        UserError: absent, half unpacked, images without annotations or the reverse, or other classes: one line says
            what is missing, where it is expected and how to get it.
    """
    folder = root / layout.folder
    total = hashlib.sha256(name.encode())
    try:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}")
        for part in layout.parts:
            names = sorted(image_names(part, folder))
            _require_all(part, folder, names)
            for text in (*names, *_contents(part, folder, names, cache)):
                total.update(f"{text}\0".encode())
    except UserError as error:
        said = str(error).replace("\n", "\\n")  # names of images, that a file of others' holds
        raise UserError(f"{name} is not complete: {said} ($CGH_DATA is {root}); to get it, {layout.how}") from None
    return total.hexdigest()[:16]


def image_names(part: Part, folder: Path) -> list[str]:
    """What fills `{}`, in the order of its list, else sorted."""
    if "{}" not in part.annotations:
        with _mapped(folder / part.annotations) as text:
            return [name.decode(errors="replace") for name in re.findall(rb'"file_name":\s*"([^"]+)"', text)]
    if part.listed:
        return [line.split()[0] for line in _read(folder / part.listed).splitlines() if line.strip()]
    return sorted(set(_found(part.images, folder)) | set(_found(part.annotations, folder)))


def _read(path: Path) -> str:
    _require_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error})") from None


def _mapped(path: Path) -> mmap.mmap:
    """The bytes of a file that may be larger than what one wants in memory."""
    _require_file(path)
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _require_file(path: Path) -> None:
    if not path.is_file() or not path.stat().st_size:
        raise UserError(f"{path} is absent or empty")


def _found(pattern: str, folder: Path) -> Iterator[str]:
    """What fills `{}` in the paths that are there, folders included."""
    before, after = pattern.split("{}")
    start = folder / before
    for path in start.rglob(f"*{after}"):
        yield path.relative_to(start).as_posix().removesuffix(after)


def _require_all(part: Part, folder: Path, names: list[str]) -> None:
    for pattern in (part.images, part.annotations):
        absent = _absent([folder / pattern.format(name) for name in names])
        if absent:
            raise UserError(f"{len(absent)} of {len(names)} files {pattern} are absent, the first is {absent[0]}")
    if len(names) != part.count and not (folder / SUBSET).exists():
        raise UserError(
            f"{folder / part.images} has {len(names)} images, {part.count} were published (if fewer are meant, "
            f"make an empty file {folder / SUBSET})"
        )


def _absent(paths: list[Path]) -> list[Path]:
    """Those that are not there, by listing each folder once."""
    present: dict[Path, frozenset[str]] = {}
    for parent in {path.parent for path in paths}:
        try:
            present[parent] = frozenset(path.name for path in parent.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            present[parent] = frozenset()
        except (OSError, ValueError) as error:
            raise UserError(f"the folder {str(parent)[:LONGEST_NAME]!r} cannot be listed ({error})") from None
    return [path for path in paths if path.name not in present[path.parent]]


def _contents(part: Part, folder: Path, names: list[str], cache: Path | None) -> Iterator[str]:
    """Something that changes with each annotation and image; annotations are checked on the way."""
    annotations = [part.annotations.format(name) for name in names]
    if "{}" not in part.annotations:
        _require_categories(part, folder / part.annotations)
        yield sha256(folder / part.annotations)
    elif part.annotations.endswith(".xml"):
        for path in annotations:
            text = _read(folder / path)
            _require_objects(part, folder / path, text)
            yield text
    else:
        yield from (found.hex() for found in contents(folder, annotations, cache, partial(_map, part)))
    images = [part.images.format(name) for name in names]
    yield from (found.hex() for found in contents(folder, images, cache))


def _require_categories(part: Part, path: Path) -> None:
    """Check the classes of a COCO file, of which only the list of categories is parsed."""
    with _mapped(path) as text:
        if not text[-MOST_SPACE_AT_END:].rstrip().endswith(b"}"):
            raise UserError(f"{path} is cut short: it does not end with the brace that it begins with")
        start = re.search(rb'"categories":\s*', text)
        listed = text[start.end() : start.end() + MOST_BYTES_OF_CATEGORIES].decode(errors="replace") if start else "[]"
    try:
        categories, _ = json.JSONDecoder().raw_decode(listed)
        given = [str(category["name"]) for category in categories]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is cut short, or no JSON of COCO's form ({error})") from None
    assert isinstance(part.classes, tuple)
    if sorted(given) != sorted(part.classes):
        odd = sorted(set(given) ^ set(part.classes))
        raise UserError(f"{path} has {len(given)} classes, {len(part.classes)} are expected; they differ in {odd[:3]}")


def _require_objects(part: Part, path: Path, text: str) -> None:
    assert isinstance(part.classes, tuple)
    try:
        objects = ElementTree.fromstring(text).findall("object")
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is no XML ({error})") from None
    other = sorted({item.findtext("name") or "" for item in objects} - set(part.classes))
    if other:
        raise UserError(f"{path} names the class {other[0]!r}, which is none of the {len(part.classes)}")
    corners = [item.findtext(f"bndbox/{corner}", "") for item in objects for corner in CORNERS]
    if not all(re.fullmatch(r"\s*\d+(\.\d+)?\s*", corner) for corner in corners):
        raise UserError(f"{path} has an object without the numbers {', '.join(CORNERS)} in its bndbox")


def _map(part: Part, path: Path) -> bytes:
    """Sixteen bytes that change with the size and pixels of a map of class indices, which is checked."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except UNDECODABLE as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from None
    if part.classes:
        assert isinstance(part.classes, int)
        if values.ndim != 2:
            raise UserError(f"{path} has colours, not indices of classes")
        other = values[(values >= part.classes) & (values != IGNORED)]
        if other.size:
            raise UserError(f"{path} has the class {other.min()}, only 0 to {part.classes - 1} are expected")
    return hashlib.blake2b(str(values.shape).encode() + values.tobytes(), digest_size=16).digest()
