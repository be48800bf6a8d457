"""The result store: what is appended comes back, and what is no record is named and left out."""

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgh_bench import results
from cgh_bench.core.errors import UserError
from cgh_bench.results import Result

RESULT = Result(
    task="animals_knn",
    protocol="animals_knn@0123456789abcdef",
    metrics={"top1": 61.5, "top1_k1": 58},
    checkpoint="00aa",
    checkpoint_name="cgh",
    origin={"source": "canonical", "recipe": "cgh_r18_animals", "seed": 0, "ignored": ["head.weight"]},
    data="ffee",
    config={"type": "Knn", "k": [1, 20], "temperature": 0.07},
    seed=0,
    overridden=("k=5",),
    versions={"torch": "2.14.1"},
    started="2026-09-01T12:00:00+00:00",
    seconds=3.25,
)


def line(**changes: object) -> str:
    return json.dumps({**dataclasses.asdict(RESULT), **changes})


TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)))
NUMBER = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(
    st.builds(
        dataclasses.replace,
        st.just(RESULT),
        checkpoint_name=TEXT,
        metrics=st.dictionaries(TEXT, NUMBER),
        config=st.dictionaries(TEXT, TEXT | NUMBER | st.none() | st.lists(st.integers())),
        overridden=st.lists(TEXT).map(tuple),
        seconds=NUMBER,
    )
)
def test_a_record_comes_back_equal(tmp_path_factory: pytest.TempPathFactory, result: Result) -> None:
    store = tmp_path_factory.mktemp("store") / "results.jsonl"
    results.append(store, result)
    assert results.read(store) == ([result], [])


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert results.read(tmp_path / "none.jsonl") == ([], [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ("[1, 2]", "[1, 2] should be an object"),
        ('{"step": 3, "loss": 0.5}', "schema is None"),
        (line(schema=2), "schema is 2"),
        (line(schema="1"), "schema is '1'"),
        (line(metrics={"top1": math.nan}), "not JSON compliant"),
        (line(metrics={"top1": "61.5"}), "metrics.top1 = '61.5'"),
        (line(metrics={"top1": True}), "metrics.top1 = True"),
        (line(metrics={"top1": 10**400}), "metrics.top1 = 1000"),
        (line(metrics=[61.5]), "metrics = [61.5]"),
        (line(seed=True), "seed = True"),
        (line(seed=None), "seed = None"),
        (line(overridden="k=5"), "overridden = 'k=5'"),
        (line(versions={"torch": 2}), "versions.torch = 2"),
        (line(colour="red"), "unknown field 'colour'"),
        (line(seeed=1), "did you mean seed"),
        (line().replace('"data": "ffee", ', ""), "data is missing"),
        (line().replace("3.25", "1e999"), "Out of range"),
        (line().replace("61.5", "1e999"), "Out of range"),
        (line().replace("0.07", "1e999"), "Out of range"),
        (line(seed=0).replace('"seed": 0', f'"seed": {"9" * 5000}'), "digits"),
        (line(task="\ud800"), "Invalid JSON"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_foreign_line_is_named_and_the_rest_is_used(tmp_path: Path, text: str, reason: str) -> None:
    store = tmp_path / "results.jsonl"
    store.write_text(f"{line(seed=1)}\n{text}\n\n{line(seed=2)}\n", encoding="utf-8")
    records, complaints = results.read(store)
    assert [record.seed for record in records] == [1, 2]
    assert len(complaints) == 1
    assert complaints[0].startswith(f"{store}:2: not a result of schema 1 (")
    assert reason in complaints[0]


def test_bytes_that_are_not_utf8_spoil_only_their_line(tmp_path: Path) -> None:
    store = tmp_path / "results.jsonl"
    store.write_bytes(line(seed=1).encode() + b"\n\xff\xfe\x00\n" + line(seed=2).encode() + b"\r\n")
    records, complaints = results.read(store)
    assert [record.seed for record in records] == [1, 2]
    assert len(complaints) == 1


def test_unicode_line_separators_inside_a_name_do_not_split_the_record(tmp_path: Path) -> None:
    store = tmp_path / "results.jsonl"
    name = "a\u2028b\x85c"
    store.write_text(json.dumps({**dataclasses.asdict(RESULT), "checkpoint_name": name}, ensure_ascii=False) + "\n")
    records, complaints = results.read(store)
    assert [record.checkpoint_name for record in records] == [name]
    assert not complaints


def test_a_repeated_line_counts_once_and_is_said(tmp_path: Path) -> None:
    store = tmp_path / "results.jsonl"
    store.write_text(f"{line(seed=1)}\n{line(seed=2)}\n{line(seed=1)}\n")
    records, complaints = results.read(store)
    assert [record.seed for record in records] == [1, 2]
    assert complaints == [f"{store}:3: repeats line 1; counted once"]


def test_a_metric_that_is_not_finite_is_no_result() -> None:
    with pytest.raises(UserError, match="top1 is not a finite number"):
        dataclasses.replace(RESULT, metrics={"top1": math.nan, "top5": 90.0})


@settings(deadline=None)
@given(st.data())
def test_a_torn_line_swallows_nothing(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut the store anywhere in its last record: all earlier records and the one appended next are read."""
    store = tmp_path_factory.mktemp("store") / "results.jsonl"
    whole = line(seed=1).encode() + b"\n"
    torn = line(seed=2).encode()
    store.write_bytes(whole + torn[: data.draw(st.integers(1, len(torn) - 1))])
    assert [record.seed for record in results.read(store)[0]] == [1]
    results.append(store, dataclasses.replace(RESULT, seed=3))
    records, complaints = results.read(store)
    assert [record.seed for record in records] == [1, 3]
    assert len(complaints) == 1


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "results.jsonl"
    results.append(store, RESULT)
    before = store.read_bytes()
    write = os.write
    calls = []

    def half_then_full(descriptor: int, payload: bytes) -> int:
        calls.append(payload)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, payload[: len(payload) // 2])

    monkeypatch.setattr(os, "write", half_then_full)
    with pytest.raises(OSError, match="No space left"):
        results.append(store, RESULT)
    assert len(calls) == 2
    assert store.read_bytes() == before


WRITER = """
    import dataclasses, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_results import RESULT
    from cgh_bench import results
    for seed in range(int(sys.argv[4])):
        # Longer than a pipe or stdio buffer would write at once.
        result = dataclasses.replace(RESULT, seed=seed, checkpoint=sys.argv[3], config={"filler": "x" * 9000})
        results.append(Path(sys.argv[2]), result)
"""


def start_writer(store: Path, name: str, count: int) -> "subprocess.Popen[bytes]":
    arguments = [str(Path(__file__).parent), str(store), name, str(count)]
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), *arguments])


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    store = tmp_path / "results.jsonl"
    writers = [start_writer(store, f"writer{number}", 300) for number in range(3)]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 3
    records, complaints = results.read(store)
    assert not complaints
    assert len(records) == 900
    for number in range(3):
        assert [r.seed for r in records if r.checkpoint == f"writer{number}"] == list(range(300))


def test_killed_writers_leave_a_store_that_reads_and_grows(tmp_path: Path) -> None:
    store = tmp_path / "results.jsonl"
    writers = [start_writer(store, f"writer{number}", 1_000_000) for number in range(2)]
    while not store.exists() or store.stat().st_size < 2_000_000:
        assert all(writer.poll() is None for writer in writers)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    results.append(store, RESULT)
    records, complaints = results.read(store)
    assert records[-1] == RESULT
    assert len(complaints) <= 1
    for number in range(2):
        seeds = [r.seed for r in records if r.checkpoint == f"writer{number}"]
        assert seeds == list(range(len(seeds)))


def test_several_stores_become_one_without_repeats(tmp_path: Path) -> None:
    one, two, out = (tmp_path / name / "results.jsonl" for name in ("one", "two", "out"))
    with_folder = dataclasses.replace(RESULT, work="eval/00aa/seed0")
    results.append(one, with_folder, dataclasses.replace(RESULT, seed=1))
    results.append(two, dataclasses.replace(RESULT, seed=1), dataclasses.replace(RESULT, seed=2))
    with two.open("a") as file:
        file.write("not a record\n")
    results.append(out, dataclasses.replace(RESULT, seed=2))
    added, complaints = results.merge([one, two], out)
    assert added == 2
    assert len(complaints) == 1
    records, _ = results.read(out)
    assert [record.seed for record in records] == [2, 0, 1]
    assert (out.parent / records[1].work).resolve() == (one.parent / with_folder.work).resolve()
    assert results.merge([one, two, out], out)[0] == 0


MERGER = """
    import sys
    from pathlib import Path
    from cgh_bench import results
    results.merge([Path(sys.argv[1])], Path(sys.argv[2]))
"""


def test_merges_at_the_same_time_add_each_record_once(tmp_path: Path) -> None:
    store, out = tmp_path / "one.jsonl", tmp_path / "out.jsonl"
    results.append(store, *(dataclasses.replace(RESULT, seed=seed) for seed in range(400)))
    command = [sys.executable, "-c", textwrap.dedent(MERGER), str(store), str(out)]
    merges = [subprocess.Popen(command) for _ in range(3)]
    assert [merge.wait(timeout=120) for merge in merges] == [0] * 3
    assert len(out.read_bytes().splitlines()) == 400


def test_records_are_selected_and_keep_their_numbers() -> None:
    other = dataclasses.replace(RESULT, task="animals_seg", checkpoint="11bb", checkpoint_name="moco", origin={})
    both = [RESULT, other]
    assert results.select(both) == [(1, RESULT), (2, other)]
    assert results.select(both, task="animals_seg") == [(2, other)]
    assert results.select(both, checkpoint="00aa") == [(1, RESULT)]
    assert results.select(both, checkpoint="moc") == [(2, other)]
    assert results.select(both, method="cgh_r18") == [(1, RESULT)]
    assert results.select(both, protocol="none") == []


def test_exports_hold_every_figure_unrounded() -> None:
    import csv
    import io

    assert json.loads(results.export_json([RESULT])) == [json.loads(line())]
    rows = list(csv.DictReader(io.StringIO(results.export_csv([RESULT]))))
    assert {row["metric"]: float(row["value"]) for row in rows} == RESULT.metrics
    assert rows[0]["checkpoint"] == "00aa"
    assert json.loads(rows[0]["config"]) == RESULT.config
