"""The data sets that tasks and recipes name: whether they are there; on demand whether they are whole and readable."""

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from cgh_bench import data
from cgh_bench.core.errors import UserError
from cgh_bench.data import dense
from cgh_bench.data.decoding import read_image
from cgh_bench.data.folder import SUFFIXES
from cgh_bench.doctor.finding import Finding

CONSEQUENCE = "what learns from it or is evaluated on it cannot run"
SAMPLES = 3
"""Images of each part that are decoded."""


@runtime_checkable
class Fetched(Protocol):
    """A data set that the user puts in place, as the catalogue or the layouts know it."""

    @property
    def folder(self) -> str:
        """Below `$CGH_DATA`."""
        ...

    @property
    def how(self) -> str:
        """What to do to get it there."""
        ...


def subject(name: str) -> str:
    """What findings call the data set."""
    return f"data {name}"


def all_checks(names: Iterable[str], cache: Path, thoroughly: bool) -> list[Finding]:
    """A finding for each data set; `thoroughly`, all of its files are counted and some decoded."""
    return [whole(name, cache) if thoroughly else present(name) for name in names]


def present(name: str) -> Finding:
    """Whether the folder of the data set is there."""
    entry = _entry(name)
    fetched = entry if isinstance(entry, Fetched) else None
    if entry is not None and fetched is None:
        return Finding(subject(name), "ok", "embedded: made on this machine when it is needed")
    folder = _root() / (fetched.folder if fetched else name)
    if folder.is_dir():
        return Finding(subject(name), "ok", f"{folder} (not looked into: cgh-bench doctor --data)")
    own = f"put train/CLASS/* and val/CLASS/* below {folder}, or link it: ln -s /your/{name} {folder}"
    return Finding(subject(name), "absent", f"no folder {folder}", CONSEQUENCE, _typed(fetched.how if fetched else own))


def whole(name: str, cache: Path) -> Finding:
    """Whether the data set has its layout and its number of files, and a sample of them can be decoded."""
    at_first_sight = present(name)
    if at_first_sight.prevents:
        return at_first_sight
    try:
        found = _scenes(name, cache) if _is_dense(name) else _labelled(name)
    except UserError as error:
        told, _, how = str(error).rpartition("; ")
        return Finding(subject(name), "broken", told or how, CONSEQUENCE, _typed(how))
    return Finding(subject(name), "ok", found)


def _labelled(name: str) -> str:
    parts = []
    for split in ("train", "val"):
        images = data.load(name, split)
        for index in {0, len(images) // 2, len(images) - 1}:
            images.image(index)
        parts.append(f"{len(images):,} {split} images of {len(images.classes)} classes")
    return f"{', '.join(parts)}; a sample of each decodes"


def _scenes(name: str, cache: Path) -> str:
    located = dense.locate(name, cache)
    entry = _entry(name)
    folder = located.root / (entry.folder if isinstance(entry, Fetched) else name)
    for path in itertools.islice(_images(folder), SAMPLES):
        read_image(path)
    return f"{folder}: layout and numbers are right, a sample decodes (fingerprint {located.fingerprint})"


def _images(folder: Path) -> Iterator[Path]:
    """One image of each folder."""
    for above, _, files in os.walk(folder):
        yield from (Path(above, file) for file in sorted(files)[:1] if file.lower().endswith(SUFFIXES))


def _is_dense(name: str) -> bool:
    entry = data.catalog().get(name)
    return name in dense.layouts() or (entry is not None and entry.kind == "detection")


def _entry(name: str) -> object:
    return dense.layouts().get(name) or data.catalog().get(name)


def _typed(remedy: str) -> str:
    """With the folder's own name, as the variable may not be set."""
    return remedy.replace("$CGH_DATA", str(_root()))


def _root() -> Path:
    return Path(os.environ.get("CGH_DATA", "data"))
