"""What a fetched dataset must look like on disk, checked file by file before any work, and its fingerprints."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cgh_bench.core.errors import UserError
from cgh_bench.data import annotations
from cgh_bench.data.annotations import Facts, Form
from cgh_bench.data.contents import contents

Split = Literal["train", "val"]
SUBSET = "SUBSET"
"""A file of this name in a set's folder says that fewer images than published are meant."""
PREPARED = "PREPARED"
"""A file of this name says that a folder is a copy with smaller images (`data.preparing`)."""
LONGEST_NAME = 200
"""Characters of a name that an error repeats."""
VERSION = 1
"""The version of what is remembered of a file; another one has every file read again."""


def require_original(folder: Path) -> None:
    """Refuse a prepared copy in the place of a published dataset."""
    if (folder / PREPARED).is_file():
        raise UserError(
            f"{folder} is a reduced copy (see {PREPARED} in it), whose results do not follow the "
            f"published protocol; pass it as your own folder: --data {folder}"
        )


@dataclass(frozen=True)
class Part:
    """Images and their annotations. Paths are below the set's folder; `{}` stands for an image's own name."""

    images: str
    annotations: str
    """One file an image (`.xml` of VOC, `.png` maps), or one for all (`.json` of COCO, whose file names fill `{}`)."""
    count: int
    """The published number."""
    classes: tuple[str, ...] | int
    """What annotations may name; of LVIS, how many; of maps, how many values from 0 on beside 255; 0: not looked at."""
    listed: str = ""
    """The file with the names of the images; else all that are there."""
    split: Split = "train"
    """What the images are for."""
    scored: bool = False
    """Whether the metric is computed from these annotations, so that they need all that it reads."""
    form: Form = "COCO"
    """What a JSON holds."""


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
    not_in_path: tuple[str, ...] = ()
    """What the path of the folder must not contain, because the dataset's tools replace it."""


@dataclass
class Checked:
    """What was found in the files of a dataset."""

    problems: list[str] = field(default_factory=list)
    """What would stop a training, an evaluation, or make its number wrong; one line each, with the file."""
    notes: list[str] = field(default_factory=list)
    """What is worth knowing."""
    subset: str = ""
    """How much of the published data is there, if fewer images are meant."""
    train: str = ""
    """Sixteen hex digits of the content of what is trained on."""
    val: str = ""
    """Sixteen hex digits of the content of what is reported on."""


def check(name: str, layout: Layout, root: Path, cache: Path | None = None) -> Checked:
    """Check every file of the dataset below `root`, in parallel; what was read of a file is remembered in `cache`.

    The fingerprints cover names and content: of PNG images and maps the pixels, of JPEG images the bytes, of
    annotations what they say of each image. The order of lists, ids and compression do not enter.
    """
    folder, found = root / layout.folder, Checked()
    if not folder.is_dir():
        found.problems.append(f"there is no folder {folder}")
        return found
    found.problems += [
        f"the path {folder.resolve()} contains {word!r}, which the dataset's tools replace; move the dataset"
        for word in layout.not_in_path
        if word in str(folder.resolve().parent)
    ]
    totals = {split: hashlib.sha256(f"{name} {split}".encode()) for split in ("train", "val")}
    pictures: dict[str, dict[str, str]] = {"train": {}, "val": {}}
    counts = [0, 0]
    for part in layout.parts:
        read = _Reading(part, folder, cache)
        try:
            read.all()
        except UserError as error:
            read.wrong.append(str(error))
        found.problems += read.wrong
        if not read.lines:
            continue
        totals[part.split].update("\0".join(sorted(read.lines)).encode(errors="surrogatepass"))
        if part.split == "train":
            found.problems += _listed_before(pictures["train"], read.pictures, folder)
        pictures[part.split] |= read.pictures
        if part.classes:  # else its images are counted with another part
            counts = [counts[0] + len(read.names), counts[1] + part.count]
        if len(read.names) != part.count and not (folder / SUBSET).exists():
            found.problems.append(
                f"{folder / part.images} has {len(read.names)} images, {part.count} were published (to use fewer on "
                f"purpose, create an empty file {folder / SUBSET})"
            )
    if counts[0] != counts[1] and (folder / SUBSET).exists():
        found.subset = f"{counts[0]:,} of {counts[1]:,} images"
        found.notes.append(f"a subset: {found.subset}; its results are under a protocol of their own")
    compare_splits(found, pictures)
    found.train, found.val = (totals[split].hexdigest()[:16] for split in ("train", "val"))
    return found


def _listed_before(before: dict[str, str], now: dict[str, str], folder: Path) -> Iterator[str]:
    again = sorted(before.keys() & now.keys())
    if again:
        yield f"{len(again)} images are listed twice for training, the first is {folder / again[0]}"


def compare_splits(found: Checked, pictures: dict[str, dict[str, str]]) -> None:
    """Note whether val has the images of train, by name or by content: `pictures` has the digest of each by path."""
    train, val = pictures["train"], pictures["val"]
    names = sorted(train.keys() & val.keys())
    if names:
        found.problems.append(f"{len(names)} val images are listed for training too, the first is {names[0]}")
        return
    contents_of_train = set(train.values())
    same = sorted(path for path, digest in val.items() if digest in contents_of_train)
    if same and len(same) == len(val):
        found.problems.append(f"all {len(same)} val images are train images too, the first is {same[0]}")
    elif same:
        found.notes.append(f"{len(same)} val images are in train too, under another name; the first is {same[0]}")


class _Reading:
    """One part as it is read."""

    def __init__(self, part: Part, folder: Path, cache: Path | None) -> None:
        self.part, self.folder, self.cache = part, folder, cache
        self.names: list[str] = []
        self.wrong: list[str] = []
        self.lines: list[str] = []
        """Something that changes with each image and its annotations."""
        self.pictures: dict[str, str] = {}
        """The digest of each image by its path below the folder."""

    def all(self) -> None:
        """Read the part.

        Raises:
            UserError: images or annotations are absent, or the file that lists them cannot be read.
        """
        if "{}" in self.part.annotations:
            self.names = image_names(self.part, self.folder)
            self._require_present((self.part.annotations, self.part.images))
            said = self._said_of_each()
        else:
            said = self._said_in_one()
            if not said:
                return
            self.names = list(said)
            self._require_present((self.part.images,))
        repeated = [name for name, count in Counter(self.names).items() if count > 1]
        if repeated:
            self.wrong.append(f"{self.folder / self.part.listed} lists {repeated[0]} twice")
        self._images(said)
        if said and not sum(each.get("objects", 0) for each in said.values()):
            self.wrong.append(f"{self.folder / self.part.annotations} has no object in any of {len(said)} images")

    def _require_present(self, patterns: Sequence[str]) -> None:
        for pattern in patterns:
            absent = _absent([self.folder / pattern.format(name) for name in self.names])
            if absent:
                files = "files" if pattern == "{}" else f"files {pattern}"
                raise UserError(f"{len(absent)} of {len(self.names)} {files} are missing (first: {absent[0]})")

    def _said_in_one(self) -> dict[str, Facts]:
        """What a JSON for all images says, by file name."""
        path, part = self.folder / self.part.annotations, self.part
        _require_file(path)
        (facts,) = self._facts(
            [part.annotations], lambda file: annotations.coco(file, part.classes, part.scored, part.form)
        )
        if self._note_faults(path, facts):
            return {}
        return {
            name: {"size": [width, height], "digest": digest, "objects": objects}
            for name, (width, height, digest, objects) in facts["images"].items()
        }

    def _said_of_each(self) -> dict[str, Facts]:
        """What the annotations of each image say, by its name."""
        classes, scored = self.part.classes, self.part.scored
        if isinstance(classes, int):
            found = self._facts(self._paths(self.part.annotations), lambda file: annotations.class_map(file, classes))
        else:
            found = self._facts(self._paths(self.part.annotations), lambda file: annotations.voc(file, classes, scored))
        for name, facts in zip(self.names, found, strict=True):
            self._note_faults(self.folder / self.part.annotations.format(name), facts)
        return dict(zip(self.names, found, strict=True))

    def _images(self, said: dict[str, Facts]) -> None:
        """Read the images, and compare their sizes with what is said of them."""
        paths = self._paths(self.part.images)
        for name, path, facts in zip(self.names, paths, image_facts(self.folder, paths, self.cache), strict=True):
            if self._note_faults(self.folder / path, facts) or "digest" not in said[name]:
                continue
            if facts["size"] != said[name]["size"]:
                (width, height), (other, high) = facts["size"], said[name]["size"]
                turned = " once turned as its EXIF orientation says" if facts["turned"] else ""
                self.wrong.append(
                    f"{self.folder / path} is {width}×{height} pixels{turned}, but "
                    f"{self.folder / self.part.annotations.format(name)} is for {other}×{high}"
                )
            self.pictures[path] = facts["digest"]
            self.lines.append(f"{name} {facts['digest']} {said[name]['digest']}")

    def _note_faults(self, path: Path, facts: Facts) -> bool:
        """Note what is wrong with a file; whether anything is."""
        self.wrong += [f"{path} {fault[:LONGEST_NAME]}" for fault in facts["wrong"]]
        return bool(facts["wrong"])

    def _paths(self, pattern: str) -> list[str]:
        return [pattern.format(name) for name in self.names]

    def _facts(self, paths: list[str], read: Callable[[Path], Facts]) -> list[Facts]:
        return facts(self.folder, paths, self.cache, read, str((self.part.classes, self.part.scored, self.part.form)))


def image_facts(folder: Path, paths: Sequence[str], cache: Path | None) -> list[Facts]:
    """What `annotations.image` says of each of the files below `folder`."""
    return facts(folder, paths, cache, annotations.image, "image")


def facts(
    folder: Path, paths: Sequence[str], cache: Path | None, read: Callable[[Path], Facts], kind: str
) -> list[Facts]:
    """What `read` says of each of the files below `folder`, remembered under `kind`."""
    as_bytes: Callable[[Path], bytes] = lambda path: json.dumps(read(path)).encode()  # noqa: E731
    return [json.loads(each) for each in contents(folder, paths, cache, as_bytes, f"{VERSION} {kind}", "checking")]


def image_names(part: Part, folder: Path) -> list[str]:
    """What fills `{}`, in the order of its list, else sorted; of parts with one annotation file an image."""
    if part.listed:
        return [line.split()[0] for line in _read(folder / part.listed).splitlines() if line.strip()]
    return sorted(set(_found(part.images, folder)) | set(_found(part.annotations, folder)))


def files_of(part: Part, folder: Path) -> tuple[tuple[Path, Path], ...]:
    """Each image of a part with one annotation file an image, and that file."""
    names = image_names(part, folder)
    return tuple((folder / part.images.format(name), folder / part.annotations.format(name)) for name in names)


def _read(path: Path) -> str:
    _require_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error})") from None


def _require_file(path: Path) -> None:
    if not path.is_file() or not path.stat().st_size:
        raise UserError(f"{path} is missing or empty")


def _found(pattern: str, folder: Path) -> Iterator[str]:
    """What fills `{}` in the paths that are there, folders included."""
    before, after = pattern.split("{}")
    start = folder / before
    for path in start.rglob(f"*{after}"):
        if not path.name.startswith("."):
            yield path.relative_to(start).as_posix().removesuffix(after)


def _absent(paths: list[Path]) -> list[Path]:
    """The paths that do not exist, by listing each folder once."""
    present: dict[Path, frozenset[str]] = {}
    for parent in {path.parent for path in paths}:
        try:
            present[parent] = frozenset(path.name for path in parent.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            present[parent] = frozenset()
        except (OSError, ValueError) as error:
            raise UserError(f"the folder {str(parent)[:LONGEST_NAME]!r} cannot be listed ({error})") from None
    return [path for path in paths if path.name not in present[path.parent]]
