"""Tar shards as webdataset writes them (https://github.com/webdataset/webdataset), read in place by random access.

`FOLDER/train/*.tar`, `FOLDER/val/*.tar` (or `validation/`, `test/`) and `FOLDER/classes.txt` (a name a line; or CLIP
benchmark's `classnames.txt`). As in webdataset, the name of a member up to the first dot of its last part is
the key of a sample, and the rest its field. An image (`KEY.jpg`) and its class number (`KEY.cls` in ASCII, from 0; or
`label` or `cls` in `KEY.json`) belong together; other fields, such as `KEY.seg.png`, are left out, with a note. Nothing
is unpacked: the members' places are found once.
"""

import hashlib
import io
import json
import logging
import re
import tarfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from cgh_bench.core.errors import UserError, one_line
from cgh_bench.data.contents import contents
from cgh_bench.data.decoding import decode
from cgh_bench.data.folder import SUFFIXES, VAL_FOLDERS
from cgh_bench.data.image_set import ImageSet, Split

if TYPE_CHECKING:
    from torch import Tensor

DIGEST = 16
"""Bytes of an image's hash."""
LONGEST_NUMBER = 16
"""Bytes of a class number, its line end included."""
LONGEST_JSON = 1_000_000
CLASS_NAMES = ("classes.txt", "classnames.txt")
KEY_AND_FIELD = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]+)$")
"""webdataset's rule for members of an example; hidden files are not members."""
LABELS = ("cls", "json")
"""The fields that hold a class."""

log = logging.getLogger(__name__)


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
                each = (_content(shard, member) for member in inside[path])
                return b"".join(hashlib.blake2b(content, digest_size=DIGEST).digest() for content in each)

        folder = self.members[0].shard.parent
        return contents(folder, [path.name for path in inside], self.cache, read)

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB, each in its own size; see `decode`."""
        member = self.members[index]
        try:
            with member.shard.open("rb") as shard:
                content = _content(shard, member)
        except OSError as error:
            raise UserError(f"{member.shard} can no longer be read ({error.strerror}); restore it") from None
        return decode(io.BytesIO(content), f"{member.shard}:{member.name}")

    def called(self, index: int) -> str:
        """Its shard, and its name there."""
        return f"{self.members[index].shard.name}:{self.members[index].name}"


def are_shards(folder: Path) -> bool:
    """Whether the dataset in `folder` is made of tar shards."""
    return any(any((folder / "train").glob(f"*{suffix}")) for suffix in (".tar", ".tar.gz", ".tgz"))


def _content(shard: BinaryIO, member: Member) -> bytes:
    shard.seek(member.offset)
    content = shard.read(member.size)
    if len(content) < member.size:
        raise UserError(f"{member.shard} was truncated within {member.name} after it was opened; restore it")
    return content


def load_shards(folder: Path, split: Split, cache: Path | None = None) -> ShardImages:
    """One split, its shards in the order of their names and the images in theirs.

    Raises:
        UserError: there are no shards or class names, a shard is damaged or compressed, an image has no class or no
            such one, or a sample has two images or is there twice.
    """
    place = _split_folder(folder, split)
    packed = sorted([*place.glob("*.tar.gz"), *place.glob("*.tgz")])
    if packed:
        raise UserError(f"{packed[0]} is compressed, which prevents random access; decompress it to .tar (gunzip)")
    shards = sorted(path for path in place.glob("*.tar") if not path.name.startswith("."))
    if not shards:
        raise UserError(f"no {split}/*.tar in {folder}; tar shards are accepted as train/*.tar and val/*.tar")
    names = next((folder / name for name in CLASS_NAMES if (folder / name).is_file()), None)
    if names is None:
        raise UserError(f"{folder / CLASS_NAMES[0]} not found; it lists the class names by number from 0, one per line")
    try:
        classes = tuple(names.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise UserError(f"{names} is not UTF-8 ({error}); save it as that") from None
    members, labels, left_out = [], [], set()
    for shard in shards:
        samples, others = _indexed(shard)
        left_out |= others
        for member, label in samples:
            if not 0 <= label < len(classes):
                raise UserError(f"{shard}:{member.name} is of class {label}, but {names} has {len(classes)} classes")
            members.append(member)
            labels.append(label)
    if left_out:
        shown = ", ".join(f"*.{name}" for name in sorted(left_out)[:5])
        log.warning("note: left out of the shards in %s: %s", place, shown)
    if not members:
        raise UserError(f"no images in the shards of {place}; add some ({' '.join(SUFFIXES)})")
    numbers = np.array(labels, dtype=np.int64)
    return ShardImages(f"{folder.name}/{split}", classes, numbers, tuple(members), cache=cache)


def _split_folder(folder: Path, split: Split) -> Path:
    if split == "train":
        return folder / "train"
    found = [name for name in VAL_FOLDERS if any((folder / name).glob("*.tar*"))]
    if len(found) > 1 and found[0] != "val":
        raise UserError(f"{folder} has {' and '.join(f'{name}/' for name in found)}; rename the one to use to val/")
    return folder / (found[0] if found else "val")


def _indexed(shard: Path) -> tuple[list[tuple[Member, int]], set[str]]:
    """The images of a shard with their classes, and which fields are left out; only headers and classes are read."""
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    found, left_out = [], set()
    try:
        with tarfile.open(shard, "r:") as tar:
            for item in tar:
                matched = KEY_AND_FIELD.match(item.name)
                if item.isdir() or not matched or "__MACOSX" in item.name:
                    continue
                fields, name = samples.setdefault(matched[1], {}), matched[2].lower()
                if name in fields:
                    raise UserError(f"{shard}: {item.name} occurs twice; keys must be unique")
                if (_is_image(name) or name in LABELS) and (not item.isfile() or item.issparse()):
                    raise UserError(f"{shard}: {item.name} is a link or a sparse file; use plain files")
                fields[name] = item
            for key, fields in samples.items():
                image = _image_of(shard, key, fields)
                left_out |= fields.keys() - {image, *LABELS}
                if image:
                    item = fields[image]
                    member = Member(shard, item.name, item.offset_data, item.size)
                    found.append((member, _label(shard, tar, key, fields, item.name)))
    except UserError:
        raise
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{shard} cannot be read ({error}); create it again, uncompressed") from None
    return found, left_out


def _is_image(field_name: str) -> bool:
    return f".{field_name.rsplit('.', 1)[-1]}" in SUFFIXES


def _image_of(shard: Path, key: str, fields: Collection[str]) -> str:
    """The field with the image of a sample, empty if it has none: one of a single word, where there is one.

    Raises:
        UserError: there are two of that kind.
    """
    images = [name for name in fields if _is_image(name)]
    chosen = [name for name in images if "." not in name] or images
    if len(chosen) > 1:
        raise UserError(
            f"{shard}: {key} has the images {' and '.join(chosen)}; keep one, or give the other a field of two words, "
            f"such as {key}.seg.png"
        )
    return chosen[0] if chosen else ""


def _label(shard: Path, tar: tarfile.TarFile, key: str, fields: Mapping[str, tarfile.TarInfo], image: str) -> int:
    """The class of a sample."""
    if "cls" in fields:
        return _number(shard, tar, fields["cls"])
    said = _json(shard, tar, fields["json"]) if "json" in fields else None
    if isinstance(said, dict):
        said = said.get("cls", said.get("label"))
    if not isinstance(said, int) or isinstance(said, bool):
        raise UserError(f"{shard}: {image} has no class; expected a member {key}.cls, or label in {key}.json")
    return said


def _json(shard: Path, tar: tarfile.TarFile, item: tarfile.TarInfo) -> Any:
    content = tar.extractfile(item)
    try:
        return json.loads(content.read(LONGEST_JSON) if content else b"")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shard}: {item.name} is not valid JSON ({one_line(error)})") from None


def _number(shard: Path, tar: tarfile.TarFile, item: tarfile.TarInfo) -> int:
    """The class that a member's content says."""
    content = tar.extractfile(item)
    text = content.read(LONGEST_NUMBER + 1) if content else b""
    if len(text) > LONGEST_NUMBER or not text.strip().isdigit():
        raise UserError(f"{shard}: {item.name} holds {text!r}; expected a class number: 0, 1, …")
    return int(text)
