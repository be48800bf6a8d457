"""Whatever an image, shard or annotation of someone else's holds: it is read, or refused in one line.

Nothing else happens. Bounded: some dozens of examples for each parser.
"""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_bytes import DEEP, JSON, bounded, damaged, tried
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.data import layout
from cgh_bench.data.decoding import decode
from cgh_bench.data.shards import load_shards

# images


def _picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


_EXIF = Image.Exif()
_EXIF[0x0112] = 6
PICTURES = {
    "jpeg": _picture("jpeg", exif=_EXIF),
    "progressive": _picture("jpeg", mode="CMYK", progressive=True),
    "png": _picture("png", mode="P", exif=_EXIF),
    "tiff": _picture("tiff", exif=_EXIF),
    "tiff lzw": _picture("tiff", compression="tiff_lzw"),
    "webp": _picture("webp", exif=_EXIF),
    "bmp": _picture("bmp"),
    "ppm": _picture("ppm"),
    "gif": _picture("gif"),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.filterwarnings("ignore")
@bounded
@given(data=st.data())
def test_a_damaged_image(kind: str, data: st.DataObject) -> None:
    tried(decode, io.BytesIO(data.draw(damaged(PICTURES[kind]))), "image")


# shards


def _member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    item = tarfile.TarInfo(name)
    item.type, item.size = kind, len(content)
    for field, value in fields.items():
        setattr(item, field, value)
    return item, content


def shards(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A set whose only shard has these members, behind a good image."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("a\nb\n")
    with tarfile.open(folder / "train/0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for item, content in (_member("ok.png", PICTURES["png"]), _member("ok.cls", b"0"), *members):
            tar.addfile(item, io.BytesIO(content))
    return folder


def look_at_all(folder: Path) -> None:
    images = load_shards(folder, "train")
    for index in range(len(images)):
        images.image(index)


@bounded
@given(data=st.data())
def test_a_damaged_shard(tmp_path: Path, data: st.DataObject) -> None:
    whole = shards(tmp_path / "whole", _member("b.png", PICTURES["png"]), _member("b.cls", b"1"))
    content = data.draw(damaged((whole / "train/0.tar").read_bytes()))
    (whole / "train/0.tar").write_bytes(content)
    tried(look_at_all, whole)


def test_paths_that_lead_out_lead_nowhere(tmp_path: Path) -> None:
    out = ("../../out", "/tmp/out", "C:\\out")
    members = [
        _member(f"{path}{suffix}", PICTURES["png"] if suffix == ".png" else b"1")
        for path in out
        for suffix in (".png", ".cls")
    ]
    folder = shards(tmp_path / "set", *members)
    before = sorted(tmp_path.rglob("*"))
    look_at_all(folder)
    assert len(load_shards(folder, "train")) == 4
    assert sorted(tmp_path.rglob("*")) == before, "nothing is unpacked"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE])
@pytest.mark.parametrize("name", ["evil.png", "evil.cls"])
def test_members_that_are_no_files(tmp_path: Path, name: str, kind: bytes) -> None:
    (tmp_path / "secret.png").write_bytes(PICTURES["png"])
    folder = shards(tmp_path / "set", _member(name, kind=kind, linkname=str(tmp_path / "secret.png")))
    with pytest.raises(UserError, match="plain files"):
        load_shards(folder, "train")


@pytest.mark.parametrize(
    "header",
    [
        {"size": 1 << 60},
        {"size": -1},
        {"kind": tarfile.GNUTYPE_SPARSE, "size": 1 << 40},
    ],
    ids=["larger than the archive", "negative", "mostly holes"],
)
@pytest.mark.parametrize("name", ["evil.png", "evil.cls"])
def test_a_member_of_absurd_size(tmp_path: Path, name: str, header: dict[str, Any]) -> None:
    """Holes would be read as terabytes of zeros."""
    folder = shards(tmp_path / "set")
    item, _ = _member(name, kind=header.get("kind", tarfile.REGTYPE))
    block = bytearray(item.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\x80" + (header["size"] % (1 << 88)).to_bytes(11, "big")
    block[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")  # of a sparse file: its size with holes
    block[148:156] = b"%06o\0 " % (256 + sum(block[:148]) + sum(block[156:512]))
    shard = folder / "train/0.tar"
    whole = shard.read_bytes().rstrip(b"\0")
    whole += bytes(-len(whole) % 512)
    shard.write_bytes(whole + bytes(block) + bytes(2048))
    with pytest.raises(UserError):
        look_at_all(folder)


def test_names_within_names(tmp_path: Path) -> None:
    """A header that only says that the next one has a longer name, ten thousand times over."""
    folder = shards(tmp_path / "set")
    item, _ = _member("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME)
    item.size = 1
    link = item.tobuf(tarfile.GNU_FORMAT) + b"x" + bytes(511)
    (folder / "train/0.tar").write_bytes(link * 10_000)
    with pytest.raises(UserError):
        look_at_all(folder)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"\n"])
def test_class_names_that_are_none(tmp_path: Path, content: bytes) -> None:
    folder = shards(tmp_path / "set")
    (folder / "classes.txt").write_bytes(content)
    tried(look_at_all, folder)


@pytest.mark.parametrize("label", [b"", b"x", b"-1", b"1e9", b"9" * 5000, "٣".encode(), b"\x00"])
def test_classes_that_are_no_numbers(tmp_path: Path, label: bytes) -> None:
    folder = shards(tmp_path / "set", _member("b.png", PICTURES["png"]), _member("b.cls", label))
    with pytest.raises(UserError):
        load_shards(folder, "train")


# annotations of detection and segmentation sets

COCO = json.dumps(
    {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 32, "height": 24} for n in "ab"],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": "a",
                "category_id": 1,
                "bbox": [1, 2, 3, 4],
                "area": 12,
                "iscrowd": 0,
                "segmentation": [],
            }
        ],
    }
).encode()
VOC = b"""<?xml version="1.0" encoding="utf-8"?>
<annotation><object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"""
LISTED = b"a\nb 1\n"
MAP = _picture("png", mode="L")
KINDS = {
    "coco": ("all.json", "{}", COCO),
    "voc": ("{}.xml", "{}.jpg", VOC),
    "list": ("{}.xml", "{}.jpg", LISTED),
    "map": ("{}.png", "{}.jpg", MAP),
}


def verified(folder: Path, kind: str, content: bytes) -> None:
    """Look at a set of two images whose annotation, or list, is `content`."""
    annotations, images, _ = KINDS[kind]
    folder.mkdir(exist_ok=True)
    for name in "ab":
        (folder / f"{name}.jpg").write_bytes(PICTURES["png"])
        (folder / f"{name}.xml").write_bytes(content if kind == "voc" else VOC)
        (folder / f"{name}.png").write_bytes(content if kind == "map" else MAP)
    (folder / "all.json").write_bytes(content if kind == "coco" else COCO)
    (folder / "list.txt").write_bytes(content if kind == "list" else LISTED)
    classes = 255 if kind == "map" else ("cat", "dog")
    part = layout.Part(images, annotations, 2, classes, "" if kind == "coco" else "list.txt")
    tried(layout.check, "set", layout.Layout(folder.name, (part,), 1.0, "fetch it"), folder.parent)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
@bounded
@given(data=st.data())
def test_damaged_annotations(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    verified(tmp_path / "set", kind, data.draw(damaged(KINDS[kind][2])))


ANNOTATION = json.loads(COCO)["annotations"][0]
OTHER = st.one_of(
    JSON.map(lambda value: {"categories": value}),
    JSON.map(lambda value: {"categories": [value]}),
    JSON.map(lambda name: {"categories": [{"name": name}]}),
    *(JSON.map(lambda value, key=key: {"annotations": [ANNOTATION | {key: value}]}) for key in ANNOTATION),
)


@settings(bounded, max_examples=80)
@given(other=OTHER)
def test_categories_and_annotations_of_any_kind(tmp_path: Path, other: dict[str, Any]) -> None:
    verified(tmp_path / "set", "coco", json.dumps(json.loads(COCO) | other).encode())


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("coco", b'{"categories": ' + DEEP.encode()),
        ("coco", b'{"images": [{"file_name": "../../etc/passwd"}, {"file_name": "\\u0000"}, {"file_name": "\xff"}]}'),
        ("coco", b'{"images": [{"file_name": "a\x00b"}], "categories": []}'),
        ("coco", b'{"images": [{"file_name": "' + b"x" * 100_000 + b'"}], "categories": []}'),
        ("coco", b'{"images": [{"file_name": "' + b"x" * 100_000 + b'/a"}], "categories": []}'),
        ("voc", f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a><object><name>&l11;</name></object></a>'.encode()),
        ("voc", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a><object><name>&x;</name></object></a>'),
        ("voc", b"<a>" * 100_000),
        ("voc", b'<?xml version="1.0" encoding="utf-7"?><a/>'),
        ("voc", b"\xff\xfe<\x00a\x00/\x00>\x00"),
        ("list", b"a\x00b\n../../../etc/passwd\n"),
        ("list", b"\xff\xfe\n"),
        ("list", b"x" * 100_000),
    ],
    ids=lambda value: value[:24].decode(errors="replace") if isinstance(value, bytes) else value,
)
def test_annotations_that_mean_harm(tmp_path: Path, kind: str, content: bytes) -> None:
    verified(tmp_path / "set", kind, content)
