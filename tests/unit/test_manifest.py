"""Own labels: tables of paths and labels, and encoded images as the `datasets` library saves them."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import cgh_bench.api
from cgh_bench import data
from cgh_bench.core.errors import UserError

ROWS = [("a.png", "cat", "train"), ("sub/b.png", "dog", "train"), ("c.png", "cat", "val"), ("d.png", "dog", "val")]


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for seed, (path, *_) in enumerate(ROWS):
        picture(seed).save(tmp_path / path)
    return tmp_path


def table(folder, rows, name="labels.csv", column="label"):
    path = folder / name
    documents = [dict(zip(("path", column, "split"), row, strict=False)) for row in rows]
    if name.endswith(".jsonl"):
        path.write_text("\n".join(map(json.dumps, documents)))
    elif name.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(documents), path)
    else:
        mark = "\t" if name.endswith(".tsv") else ","
        path.write_text(
            "\n".join(mark.join(map(str, line)) for line in (documents[0], *(d.values() for d in documents)))
        )
    return path


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "labels.jsonl", "labels.parquet"])
def test_a_table_names_images_and_their_classes(folder, name):
    path = table(folder, ROWS, name)
    train, val = (data.load(str(path), split) for split in ("train", "val"))
    assert train.classes == val.classes == ("cat", "dog") and train.labels.tolist() == [0, 1] == val.labels.tolist()
    assert train.called(1) == "sub/b.png" and np.array_equal(val.image(0).permute(1, 2, 0), np.array(picture(2)))


def test_a_table_of_a_spreadsheet(folder):
    """Windows line ends, a byte-order mark, semicolons and blanks; another encoding is refused."""
    lines = ["path; label; split", *("; ".join(row) for row in ROWS)]
    (folder / "labels.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert data.load(str(folder / "labels.csv"), "train").classes == ("cat", "dog")
    (folder / "labels.csv").write_bytes("\n".join(lines).replace("cat", "chaton né").encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        data.load(str(folder / "labels.csv"), "train")


def test_a_name_in_two_encodings_is_one_class(folder):
    labels = ("o\u0308", "cat", "\u00f6", "cat")
    path = table(folder, [(row[0], label, row[2]) for row, label in zip(ROWS, labels, strict=True)])
    assert data.load(str(path), "train").classes == ("cat", "\u00f6")


def test_numbers_are_names_in_their_order(folder):
    path = table(folder, [(row[0], label, row[2]) for row, label in zip(ROWS, (10, 2, 2, 10), strict=True)])
    train = data.load(str(path), "train")
    assert train.classes == ("2", "10") and train.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "values"),
    [("l.csv", ("cat|dog", "dog", "cat", "")), ("l.jsonl", (["cat", "dog"], ["dog"], ["cat"], []))],
)
def test_several_labels_of_an_image(folder, name, values):
    rows = [(row[0], value, row[2]) for row, value in zip(ROWS, values, strict=True)]
    path = table(folder, rows, name, "labels")
    train, val = (data.load(str(path), split) for split in ("train", "val"))
    assert train.multi_label and train.labels.tolist() == [[1, 1], [0, 1]] and val.labels.tolist() == [[1, 0], [0, 0]]


def test_two_tables_without_splits_are_a_pair(folder):
    train = table(folder, [row[:2] for row in ROWS[:2]], "train.csv")
    pair = cgh_bench.api._pair((train, table(folder, [row[:2] for row in ROWS[2:]], "val.csv")))
    assert pair.train.classes == ("cat", "dog") and len(pair.val) == 2
    with pytest.raises(UserError, match="no column split"):
        data.load(str(train), "train")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*ROWS, ("a.png", "dog", "val")], "a.png is listed with the labels cat and dog"),
        ([*ROWS, ("a.png", "cat", "train")], "2 times"),
        ([*ROWS, ("x.png", "cat", "train")], r"missing.*x\.png"),
        ([*ROWS, ("a.png", "cat", "dev")], "'dev'"),
        (ROWS[:2], "expected 'train' and 'val'"),
        ([(row[0], "", row[2]) for row in ROWS], "one class"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(folder, rows, said):
    with pytest.raises(UserError, match=said) as refused:
        data.load(str(table(folder, rows)), "train")
    assert "\n" not in str(refused.value)


def test_a_table_without_its_columns_is_refused(folder):
    (folder / "labels.csv").write_text("file,class,split\na.png,cat,train\nc.png,cat,val\n")
    with pytest.raises(UserError, match=r"columns file, class, split; expected path"):
        data.load(str(folder / "labels.csv"), "train")
    (folder / "labels.csv").write_text("a.png,cat,train\nc.png,cat,val\n")
    with pytest.raises(UserError, match=r"columns a.png, cat, train; expected path"):
        data.load(str(folder / "labels.csv"), "train")
    (folder / "labels.csv").write_text("path,label,split\na.png,cat\n")
    with pytest.raises(UserError, match="row 1"):
        data.load(str(folder / "labels.csv"), "train")
    (folder / "labels.jsonl").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        data.load(str(folder / "labels.jsonl"), "train")


@pytest.mark.parametrize("layout", ["parquet", "arrow"])
def test_encoded_images_of_the_datasets_library(tmp_path, layout):
    saved(tmp_path, layout, {"train": (0, 1), "validation": (2, 3)})
    train, val = (data.load(str(tmp_path), split) for split in ("train", "val"))
    assert train.classes == ("cat", "dog") and val.labels.tolist() == [0, 1] and val.called(0) == "2.png"
    assert np.array_equal(val.image(1).permute(1, 2, 0), np.array(picture(3))) and train.fingerprint != val.fingerprint


def saved(folder, layout, splits):
    """Pictures of these numbers, the first a cat, the second a dog, as the `datasets` library saves them."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    kept = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"]}}}}
    for split, seeds in splits.items():
        images = []
        for seed in seeds:
            file = io.BytesIO()
            picture(seed).save(file, "PNG")
            images.append({"bytes": file.getvalue(), "path": f"{seed}.png"})
        whole = pyarrow.table({"image": images, "label": [0, 1]}).replace_schema_metadata(
            {"huggingface": json.dumps(kept)}
        )
        if layout == "parquet":
            (folder / "data").mkdir(exist_ok=True)
            parquet.write_table(whole, folder / "data" / f"{split}-00000-of-00001.parquet")
        else:
            (folder / split).mkdir()
            path = str(folder / split / "data-00000-of-00001.arrow")
            with pyarrow.OSFile(path, "wb") as sink, pyarrow.ipc.new_stream(sink, whole.schema) as writer:
                writer.write_table(whole)
