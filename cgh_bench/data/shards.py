"""Tar shards as webdataset writes them (https://github.com/webdataset/webdataset), read in place by random access.

`FOLDER/train/*.tar`, `FOLDER/val/*.tar` and `FOLDER/classes.txt` (a name a line). In a shard an image `KEY.jpg` and its
class number `KEY.cls` (from 0, in ASCII) belong together. Nothing is unpacked: the members' places are found once.
"""

import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from cgh_bench.core.errors import UserError
from cgh_bench.data.contents import contents
from cgh_bench.data.decoding import decode
from cgh_bench.data.folder import SUFFIXES
from cgh_bench.data.image_set import ImageSet, Split

if TYPE_CHECKING:
    from torch import Tensor

DIGEST = 16
"""Bytes of an image's hash."""
LONGEST_NUMBER = 16
"""Bytes of a class number, its line end included."""


@dataclass(frozen=True)
class Member:
    """An image within a shard."""

    shard: Path
    name: str
    offset: int
    """The offset of its first byte in the shard."""
    size: int


@dataclass(frozen=True, eq=False)
class ShardImages(ImageSet):
    """Images read from tar files as they are asked for."""

    members: tuple[Member, ...]
    cache: Path | None = field(default=None, kw_only=True)
    """Where hashes of the images are remembered."""

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the classes, and of each image's bytes and label in order; shards and names do not enter."""
        total = hashlib.sha256("\0".join(self.classes).encode())
        found = b"".join(self._contents())
        for number, label in enumerate(self.labels.tolist()):
            total.update(found[DIGEST * number : DIGEST * (number + 1)] + str(label).encode())
        return total.hexdigest()[:16]

    def _contents(self) -> list[bytes]:
        """The hashes of the images of each shard."""
        inside: dict[Path, list[Member]] = {}
        for member in self.members:
            inside.setdefault(member.shard, []).append(member)

        def read(path: Path) -> bytes:
            with path.open("rb") as shard:
                return b"".join(_digest(shard, member) for member in inside[path])

        folder = self.members[0].shard.parent
        return contents(folder, [path.name for path in inside], self.cache, read)

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB, each in its own size; see `decode`."""
        member = self.members[index]
        with member.shard.open("rb") as shard:
            shard.seek(member.offset)
            return decode(io.BytesIO(shard.read(member.size)), f"{member.shard}:{member.name}")

    def called(self, index: int) -> str:
        """Its shard, and its name there."""
        return f"{self.members[index].shard.name}:{self.members[index].name}"


def are_shards(folder: Path) -> bool:
    """Whether the dataset in `folder` is made of tar shards."""
    return any((folder / "train").glob("*.tar"))


def _digest(shard: BinaryIO, member: Member) -> bytes:
    shard.seek(member.offset)
    return hashlib.blake2b(shard.read(member.size), digest_size=DIGEST).digest()


def load_shards(folder: Path, split: Split, cache: Path | None = None) -> ShardImages:
    """One split, its shards in the order of their names and the images in theirs.

    Raises:
        UserError: there are no shards or class names, a shard is damaged, or an image has no class or no such one.
    """
    shards = sorted((folder / split).glob("*.tar"))
    if not shards:
        raise UserError(f"no {split}/*.tar in {folder}; tar shards are accepted as train/*.tar and val/*.tar")
    names = folder / "classes.txt"
    if not names.is_file():
        raise UserError(f"{names} is absent; it has the name of class 0 in its first line, and so on")
    try:
        classes = tuple(names.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise UserError(f"{names} is not UTF-8 ({error}); save it as that") from None
    members, labels = [], []
    for shard in shards:
        for member, label in _indexed(shard):
            if not 0 <= label < len(classes):
                raise UserError(f"{shard}:{member.name} is of class {label}, but {names} has {len(classes)} classes")
            members.append(member)
            labels.append(label)
    if not members:
        raise UserError(f"no image in the shards of {folder / split}; put some there ({' '.join(SUFFIXES)})")
    numbers = np.array(labels, dtype=np.int64)
    return ShardImages(f"{folder.name}/{split}", classes, numbers, tuple(members), cache=cache)


def _indexed(shard: Path) -> list[tuple[Member, int]]:
    """The images of a shard with their classes; only headers and classes are read."""
    images: dict[str, Member] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for item in tar:
                key, suffix = str(PurePosixPath(item.name).with_suffix("")), PurePosixPath(item.name).suffix.lower()
                if item.isdir() or suffix not in (*SUFFIXES, ".cls"):
                    continue
                if not item.isfile() or item.issparse():
                    raise UserError(f"{shard}: {item.name} is a link, or has holes; make it again of plain files")
                if suffix in SUFFIXES:
                    images[key] = Member(shard, item.name, item.offset_data, item.size)
                else:
                    labels[key] = _number(shard, tar, item)
    except UserError:
        raise
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{shard} cannot be read ({error}); make it again (not compressed)") from None
    unlabelled = sorted(images.keys() - labels.keys())
    if unlabelled:
        raise UserError(f"{shard}: {images[unlabelled[0]].name} has no class; a member {unlabelled[0]}.cls is needed")
    return [(member, labels[key]) for key, member in images.items()]


def _number(shard: Path, tar: tarfile.TarFile, item: tarfile.TarInfo) -> int:
    """The class that a member's content says."""
    content = tar.extractfile(item)
    text = content.read(LONGEST_NUMBER + 1) if content else b""
    if len(text) > LONGEST_NUMBER or not text.strip().isdigit():
        raise UserError(f"{shard}: {item.name} holds {text!r}; expected a class number: 0, 1, …")
    return int(text)
