"""Own labels: a table of paths, labels and splits (CSV, JSON lines, parquet), or encoded images in tables.

Columns: `path`, relative to the table; `label`, the name of one class, or `labels`, of any number (a list, or joined by
`|`); `split`, `train` or `val`; and perhaps `group`, by which accuracy is reported too (hospitals, cameras). As the
Hugging Face `datasets` library saves them (parquet, or `save_to_disk`): `image`, which holds the encoded bytes, and
`label`; the splits are files or folders.
"""

import csv
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgh_bench.core.errors import UserError, one_line
from cgh_bench.data.decoding import decode
from cgh_bench.data.folder import VAL_FOLDERS, composed, from_list
from cgh_bench.data.groups import Groups, grouped
from cgh_bench.data.image_set import DataPair, Hashed, ImageSet, Split

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
SEPARATOR = "|"
Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class EncodedImages(Hashed):
    """Images whose files are values of a table, as `{"bytes": …, "path": …}`."""

    files: Sequence[Any]

    def called(self, index: int) -> str:
        """Its path, where the table has it."""
        return str(_value(self.files[index]).get("path") or super().called(index))

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB; see `decode`."""
        return decode(io.BytesIO(_value(self.files[index])["bytes"]), f"{self.name}[{index}]")


def is_manifest(path: Path) -> bool:
    """Whether it is a table, or a folder as the `datasets` library saves it."""
    return path.suffix in SUFFIXES if path.is_file() else bool(path.is_dir() and _tables(path))


def load_manifest(path: Path, split: Split, cache: Path | None = None) -> ImageSet:
    """One split of a table with a column `split`, or of a folder of tables.

    Raises:
        UserError: a column or a split is missing, a path is listed twice, or an image is absent.
    """
    if path.is_dir():
        found = {name: [row for file in files for row in _rows(file)] for name, files in _tables(path).items()}
    else:
        rows = _rows(path)
        if rows:
            _columns(path, rows[0])
        if rows and "split" not in rows[0]:
            raise UserError(
                f"{path} has no column split (train or val); add one, or give two files: data=(TRAIN, VAL) in Python"
            )
        splits = dict.fromkeys(row["split"] for row in rows)
        found = {name: [row for row in rows if row["split"] == name] for name in splits}
    sets = _sets(path, _two_splits(path, found), cache)
    if split == "val":
        _note_absent_groups(*sets)
    return sets[0 if split == "train" else 1]


def load_manifests(train: Path, val: Path) -> DataPair:
    """Two tables without splits, as train and val; see `load_manifest`."""
    sets = _sets(train, {"train": _rows(train), "val": _rows(val)}, None, val.parent)
    _note_absent_groups(*sets)
    return DataPair(train.stem, *sets)


def _two_splits(path: Path, found: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    vals = [name for name in VAL_FOLDERS if name in found]
    odd = set(found) - {"train", *VAL_FOLDERS}
    if odd or "train" not in found or not vals or ("val" not in vals and len(vals) > 1):
        raise UserError(f"{path} has the splits {', '.join(map(repr, found))}; expected 'train' and 'val'")
    return {"train": found["train"], "val": found[vals[0]]}


def _sets(
    path: Path, splits: Mapping[str, list[Row]], cache: Path | None, val_folder: Path | None = None
) -> list[ImageSet]:
    rows = [row for each in splits.values() for row in each]
    if any(not each for each in splits.values()):
        raise UserError(f"{path}: a split has no rows")
    column, place = _columns(path, rows[0])
    if place == "path":
        _require_once(path, rows, column)
    named = [_labels(path, row, column) for row in rows]
    classes = tuple(sorted({name for each in named for name in each}, key=_order))
    number = {name: index for index, name in enumerate(classes)}
    groups = {split: _groups(path, each, column) for split, each in splits.items()} if "group" in rows[0] else {}
    sets: list[ImageSet] = []
    for split, each in splits.items():
        folder = val_folder if split == "val" and val_folder else path.parent
        names = [_labels(path, row, column) for row in each]
        labels = [number[name[0]] for name in names] if column == "label" else [_vector(name, number) for name in names]
        called = f"{path.stem}/{split}"
        if place == "path":
            listed = [(str(row["path"]), label) for row, label in zip(each, labels, strict=True)]
            sets.append(replace(from_list(called, folder, classes, listed, cache=cache), groups=groups.get(split)))
        else:
            files = [row["image"] for row in each]
            content = _content(classes, labels, files, groups.get(split))
            numbers = np.array(labels, dtype=np.int64)
            sets.append(EncodedImages(called, classes, numbers, content, files, groups=groups.get(split)))
    return sets


def _columns(path: Path, row: Row) -> tuple[str, str]:
    """The columns of the labels and of the images."""
    column = next((name for name in ("labels", "label") if name in row), None)
    place = next((name for name in ("path", "image") if name in row), None)
    if column is None or place is None:
        raise UserError(f"{path} has the columns {', '.join(row)}; expected path (or image) and label (or labels)")
    return column, place


def _require_once(path: Path, rows: Sequence[Row], column: str) -> None:
    for name, count in Counter(row["path"] for row in rows).items():
        if count > 1:
            said = sorted({str(row[column]) for row in rows if row["path"] == name})
            what = f"with the labels {' and '.join(said)}" if len(said) > 1 else f"{count} times"
            raise UserError(f"{path}: {name} is listed {what}; list every image once")


def _labels(path: Path, row: Row, column: str) -> list[str]:
    value = row[column]
    if column == "labels" and isinstance(value, str):
        value = [part.strip() for part in value.split(SEPARATOR) if part.strip()]
    found = [composed(str(each)) for each in (value if isinstance(value, list | tuple) else [value])]
    if column == "label" and (len(found) != 1 or value in (None, "")):
        raise UserError(
            f"{path}: {row.get('path', 'an image')} has the label {value!r}; expected the name of one class"
        )
    return found


def _groups(path: Path, rows: Sequence[Row], column: str) -> Groups:
    if column == "labels":
        raise UserError(f"{path} has the columns labels and group; groups need one label per image, in a column label")
    for row in rows:
        if row["group"] in (None, ""):
            raise UserError(f"{path}: {row.get('path', 'an image')} has no group; name one for every image")
    return grouped([composed(str(row["group"])) for row in rows])


def _note_absent_groups(train: ImageSet, val: ImageSet) -> None:
    if train.groups and val.groups and (absent := sorted({*train.groups.names} - {*val.groups.names})):
        log.warning(
            "note: %d of the %d groups of %s have no image in val, and no accuracy is reported of them: %s",
            len(absent),
            len(train.groups.names),
            train.name,
            ", ".join(absent[:5]),
        )


def _vector(names: Iterable[str], number: Mapping[str, int]) -> list[int]:
    present = {number[name] for name in names}
    return [int(index in present) for index in range(len(number))]


def _order(name: str) -> tuple[int, str]:
    """Numbers by their value, before words."""
    return (int(name), "") if name.isdecimal() else (10**9, name)


def _content(classes: Sequence[str], labels: Sequence[Any], files: Sequence[Any], groups: Groups | None) -> str:
    digest = hashlib.sha256("\0".join(classes).encode())
    for label, file in zip(labels, files, strict=True):
        digest.update(f"{label}".encode() + hashlib.sha256(_value(file)["bytes"]).digest())
    digest.update(groups.digest() if groups else b"")
    return digest.hexdigest()[:16]


def _value(file: Any) -> dict[str, Any]:
    """A cell of an Arrow table as Python values."""
    return file.as_py() if hasattr(file, "as_py") else file


def _tables(folder: Path) -> dict[str, list[Path]]:
    """The files of each split: `data/train-00000-of-00002.parquet`, or `train/data-00000-of-00001.arrow`."""
    found: dict[str, list[Path]] = {}
    for file in sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet"), *folder.glob("*/*.arrow")]):
        split = file.parent.name if file.suffix == ".arrow" else file.name.partition("-")[0].removesuffix(".parquet")
        found.setdefault(split, []).append(file)
    return found


def _rows(path: Path) -> list[Row]:
    try:
        if path.suffix in (".parquet", ".arrow"):
            return _arrow_rows(path)
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            head = text.partition("\n")[0]
            mark = "\t" if path.suffix == ".tsv" else max(",;", key=head.count)  # spreadsheets write either
            rows = list(csv.DictReader(io.StringIO(text), delimiter=mark, strict=True, skipinitialspace=True))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not encoded in UTF-8; save it in UTF-8") from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)})") from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or set(row) != set(rows[0]) or None in row.values():
            raise UserError(f"{path}: row {number} has other columns than the first row")
    return rows


def _arrow_rows(path: Path) -> list[Row]:
    """Rows whose images stay in the table; labels under the names that `datasets` keeps with it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path} needs pyarrow: pip install pyarrow") from None
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path)
    else:
        with pyarrow.memory_map(str(path)) as source:
            table = pyarrow.ipc.open_stream(source).read_all()
    kept = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    names = kept.get("info", {}).get("features", {}).get("label", {}).get("names")
    columns = {name: table[name].to_pylist() for name in table.column_names if name != "image"}
    if names and "label" in columns:
        odd = [label for label in columns["label"] if label not in range(len(names))]
        if odd:
            raise UserError(
                f"{path} has the label {odd[0]}, but {len(names)} class names; expected 0 to {len(names) - 1}"
            )
        columns["label"] = [names[label] for label in columns["label"]]
    if "image" in table.column_names:
        columns["image"] = list(table["image"])
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
