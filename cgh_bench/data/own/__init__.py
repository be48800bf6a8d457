"""Formats of boxes and masks of the user's own, one file each, in FORMATS: what a folder says, in COCO's terms."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cgh_bench.data.annotations import Facts
from cgh_bench.data.image_set import Split

Document = dict[str, list[Facts]]
"""COCO's lists `images`, `annotations` and `categories`."""
WORDS: dict[Split, tuple[str, ...]] = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}
"""What folders, files and lists of a split are called; the first that is there counts."""


@dataclass
class Said:
    """What the user's files say of one split."""

    source: Path
    """The file or folder that says it."""
    document: Document
    """A `file_name` is a whole path. The categories are in the order of the network's outputs."""
    wrong: list[str] = field(default_factory=list)
    """What is wrong with the files, one line each."""


@dataclass(frozen=True)
class Format:
    """How a format is recognised and read."""

    expected: str
    """What such a folder holds, for messages."""
    fits: Callable[[Path], bool]
    read: Callable[[Path, Path | None], dict[Split, Said]]
    """What a folder says of each split; what is read of images is remembered in the cache, if one is given."""


def numbered(lines: list[Facts]) -> list[Facts]:
    """Annotations with ids from 1, and COCO's fields that their format does not have."""
    return [
        {"id": number, "iscrowd": 0, "segmentation": [], "area": line["bbox"][2] * line["bbox"][3], **line}
        for number, line in enumerate(lines, start=1)
    ]


def categories(names: list[str]) -> list[Facts]:
    """Classes with ids from 1."""
    return [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
