"""Whatever a results file, log, table or description of someone else's holds: it is read, or refused in one line.

Nothing else happens. Bounded: some dozens of examples for each parser. Checkpoints have their own such tests in
test_safe_pickle.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import test_importers
from foreign_bytes import DEEP, JSON, bounded, damaged, tried
from hypothesis import given
from hypothesis import strategies as st

from cgh_bench import importers, results
from cgh_bench.checkpoint import describe, from_description, random_checkpoint
from cgh_bench.core import config
from cgh_bench.core.errors import UserError
from cgh_bench.report import definition
from cgh_bench.site import charts

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
    assert charts.read_log(tmp_path, []) is not None
    charts.last_seconds(tmp_path)


# what other tools measured

SAMPLES = {
    "detectron2": test_importers.DETECTRON2,
    "mmdet": test_importers.MMDET,
    "mmseg": test_importers.MMSEG,
    "dino": test_importers.DINO_KNN,
    "lightly": test_importers.LIGHTLY,
    "solo-learn": test_importers.SOLO_KNN,
    "mteb": test_importers.MTEB,
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


GIVEN = random_checkpoint("resnet18")


@bounded
@given(
    text=damaged(describe(GIVEN).encode()).map(lambda content: content.decode(errors="replace")) | JSON.map(json.dumps)
)
def test_any_description_of_weights(text: str) -> None:
    tried(from_description, text, GIVEN.weights)


@bounded
@given(field=st.sampled_from(["name", "architecture", "preprocessing", "origin"]), value=JSON)
def test_a_description_with_any_value(field: str, value: Any) -> None:
    whole = json.loads(describe(GIVEN))
    tried(from_description, json.dumps(whole | {field: value}), GIVEN.weights)
    if isinstance(whole[field], dict):
        for inner in whole[field]:
            tried(from_description, json.dumps(whole | {field: whole[field] | {inner: value}}), GIVEN.weights)
