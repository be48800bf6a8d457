"""Whatever a file of someone else's holds: it is read, or refused in one line. Nothing else happens.

Bounded: some dozens of examples for each parser. Checkpoints have their own such tests in test_safe_pickle.py.
"""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_importers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cgh_bench import config, importers, results
from cgh_bench.checkpoint import describe, from_description, random_checkpoint
from cgh_bench.data import layout
from cgh_bench.data.decoding import decode
from cgh_bench.data.shards import load_shards
from cgh_bench.errors import UserError
from cgh_bench.report import curves, definition

bounded = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
DEEP = "[" * 100_000


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with some bytes changed, cut out or put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.sampled_from(["change", "cut", "insert", "end"])):
            case "change" if content:
                content[place] = draw(st.integers(0, 255))
            case "cut":
                del content[place : place + draw(st.integers(1, 40))]
            case "insert":
                content[place:place] = draw(st.binary(max_size=20))
            case "end":
                del content[max(place, len(content) // 2) :]
    return bytes(content)


def tried(parse: Any, *arguments: Any) -> None:
    """Call `parse`; only a UserError of one line may come out."""
    try:
        parse(*arguments)
    except UserError as error:
        assert "\n" not in str(error)


# results and logs of ours, that others may have edited

RECORD: dict[str, Any] = {
    "task": "knn", "protocol": "knn@1", "metrics": {"top1": 1.0}, "checkpoint": "a", "checkpoint_name": "a",
    "origin": {}, "data": "d", "config": {}, "seed": 0, "overridden": [], "commit": "", "versions": {}, "device": "",
    "started": "", "seconds": 0.0, "work": "", "schema": results.SCHEMA,
}  # fmt: skip


def read_results(tmp_path: Path, *lines: bytes) -> None:
    """One good line in front, which must be read whatever follows."""
    store = tmp_path / "results.jsonl"
    store.write_bytes(b"\n".join([json.dumps(RECORD).encode(), *lines]))
    records, complaints = results.read(store)
    assert records[0].task == "knn"
    assert all("\n" not in complaint for complaint in complaints)
    results.export_csv(records)
    results.export_json(records)


@bounded
@given(line=damaged(json.dumps(RECORD).encode()))
def test_a_damaged_result(tmp_path: Path, line: bytes) -> None:
    read_results(tmp_path, line)


@bounded
@given(field=st.sampled_from(list(RECORD)), value=JSON)
def test_a_result_with_any_value(tmp_path: Path, field: str, value: Any) -> None:
    read_results(tmp_path, json.dumps(RECORD | {field: value}).encode())
    read_results(tmp_path, json.dumps(RECORD | {"metrics": {"top1": value}}).encode(), json.dumps(value).encode())


def test_a_result_without_end(tmp_path: Path) -> None:
    read_results(tmp_path, DEEP.encode(), b"\x00" * 10_000)


@bounded
@given(lines=st.lists(JSON.map(json.dumps) | st.text(), max_size=5))
def test_a_log_with_any_lines(tmp_path: Path, lines: list[str]) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(['{"epoch": 1, "loss": 2}', *lines]), encoding="utf-8", errors="replace")
    assert curves.read_log(tmp_path, []) is not None
    curves.last_seconds(tmp_path)


# what other tools measured

SAMPLES = {
    "detectron2": test_importers.DETECTRON2,
    "mmdet": test_importers.MMDET,
    "mmseg": test_importers.MMSEG,
    "dino": test_importers.DINO_KNN,
    "lightly": test_importers.LIGHTLY,
    "solo-learn": test_importers.SOLO_KNN,
    "timm": test_importers.TIMM,
}


def imported(path: Path, tool: str, content: bytes) -> None:
    path.write_bytes(content)
    for label in ("", "linear"):
        tried(importers.read, importers.Import(path, tool, "theirs", label))


def test_every_importer_has_a_sample() -> None:
    assert set(SAMPLES) == set(importers.IMPORTERS)


@pytest.mark.parametrize("tool", SAMPLES)
@bounded
@given(data=st.data())
def test_a_damaged_file_of_another_tool(tmp_path: Path, tool: str, data: st.DataObject) -> None:
    imported(tmp_path / "file", tool, data.draw(damaged(SAMPLES[tool].encode())))


@pytest.mark.parametrize("tool", SAMPLES)
@bounded
@given(value=JSON, key=st.sampled_from(["bbox/AP", "coco/bbox_mAP", "mIoU", "a Top 1", "best_classifier", "val_acc1"]))
def test_a_file_of_another_tool_with_any_value(tmp_path: Path, tool: str, value: Any, key: str) -> None:
    imported(tmp_path / "file", tool, json.dumps({key: value}).encode())
    imported(tmp_path / "file", tool, json.dumps(value).encode())


@pytest.mark.parametrize("tool", SAMPLES)
@pytest.mark.parametrize(
    "text", [DEEP, '{"a": ' * 50_000, '"' + "x" * 200_000, "model,top1,top5\nr,1,2,3\n", '{"mIoU": 1e999}']
)
def test_a_file_of_another_tool_that_never_ends(tmp_path: Path, tool: str, text: str) -> None:
    imported(tmp_path / "file", tool, text.encode())


# tables, settings, descriptions

TABLE = (definition.TABLES / "animals.toml").read_bytes()


@bounded
@given(content=damaged(TABLE))
def test_a_damaged_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.toml").write_bytes(content)
    tried(definition.load, str(tmp_path / "t.toml"))


@pytest.mark.parametrize(
    "text",
    [
        "a = " + DEEP,
        "rows = 1\ncolumns = 1",
        "title = 1\nrows = [1]\ncolumns = [1]",
        'title = ""\n[[rows]]\nlabel = ""\nepochs = "a"\n[[columns]]\nheader = ""\ntask = "knn"\nmetric = "top1"',
        'title = ""\n[[rows]]\nlabel = "a"\nrecipe = "a"\n[[columns]]\nheader = []\ntask = {}',
        "title = 1979-05-27\n[[rows]]\n[[columns]]",
    ],
)
def test_a_table_of_other_types(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(UserError):
        definition.load(str(tmp_path / "t.toml"))


@bounded
@given(text=st.text(), kind=st.sampled_from([int, float, bool, str, tuple[int, ...], tuple[float, float], int | None]))
def test_any_setting(text: str, kind: Any) -> None:
    try:
        config.parse(text, kind)
    except ValueError as error:
        assert not isinstance(error, UnicodeError)


TRUNK = random_checkpoint("resnet18")


@bounded
@given(
    text=damaged(describe(TRUNK).encode()).map(lambda content: content.decode(errors="replace")) | JSON.map(json.dumps)
)
def test_any_description_of_weights(text: str) -> None:
    tried(from_description, text, TRUNK.weights)


@bounded
@given(field=st.sampled_from(["name", "architecture", "preprocessing", "origin"]), value=JSON)
def test_a_description_with_any_value(field: str, value: Any) -> None:
    whole = json.loads(describe(TRUNK))
    tried(from_description, json.dumps(whole | {field: value}), TRUNK.weights)
    if isinstance(whole[field], dict):
        for inner in whole[field]:
            tried(from_description, json.dumps(whole | {field: whole[field] | {inner: value}}), TRUNK.weights)


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
@settings(bounded, max_examples=150)
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
        "images": [{"file_name": "a.jpg"}, {"file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "cat"}, {"name": "dog"}],
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
        (folder / f"{name}.jpg").write_bytes(b"")
        (folder / f"{name}.xml").write_bytes(content if kind == "voc" else VOC)
        (folder / f"{name}.png").write_bytes(content if kind == "map" else MAP)
    (folder / "all.json").write_bytes(content if kind == "coco" else COCO)
    (folder / "list.txt").write_bytes(content if kind == "list" else LISTED)
    classes = 255 if kind == "map" else ("cat", "dog")
    part = layout.Part(images, annotations, 2, classes, "" if kind == "coco" else "list.txt")
    tried(layout.verify, "set", layout.Layout(folder.name, (part,), 1.0, "fetch it"), folder.parent)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
@settings(bounded, max_examples=150)
@given(data=st.data())
def test_damaged_annotations(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    verified(tmp_path / "set", kind, data.draw(damaged(KINDS[kind][2])))


@bounded
@given(value=JSON, name=JSON)
def test_categories_of_any_kind(tmp_path: Path, value: Any, name: Any) -> None:
    for categories in (value, [value], [{"name": name}]):
        verified(tmp_path / "set", "coco", json.dumps({"categories": categories}).encode())


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
