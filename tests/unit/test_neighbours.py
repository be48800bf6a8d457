import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgh_bench.core.errors import UserError
from cgh_bench.frozen import neighbours as module
from cgh_bench.frozen import rows as chunked
from cgh_bench.frozen.neighbours import Backend, neighbours, planned_seconds, shared_neighbours

BACKENDS: tuple[Backend, ...] = ("faiss", "torch")


def reference(bank: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Loops in float64: cosine, best first, the lower row first among equals."""
    unit = [row / max(np.linalg.norm(row), 1e-12) for row in bank.astype(np.float64)]
    similarities, rows = [], []
    for query in queries.astype(np.float64):
        unit_query = query / max(np.linalg.norm(query), 1e-12)
        scored = sorted((-float(np.dot(row, unit_query)), number) for number, row in enumerate(unit))[:k]
        similarities.append([-s for s, _ in scored])
        rows.append([number for _, number in scored])
    return np.array(similarities), np.array(rows)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunk", [7, 65_536])
def test_equals_loops(backend: Backend, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "ROWS_PER_CHUNK", chunk)
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(120, 16)).astype(np.float32)
    queries = rng.normal(size=(9, 16)).astype(np.float32)
    similarity, row = neighbours(bank, queries, 10, backend)
    expected, expected_row = reference(bank, queries, 10)
    np.testing.assert_array_equal(row, expected_row)
    np.testing.assert_allclose(similarity, expected, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 90), k=st.integers(1, 100), copies=st.integers(1, 60))
def test_backends_agree_to_the_bit_also_on_ties(seed: int, n: int, k: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    bank = rng.integers(-2, 3, size=(n, 4)).astype(np.float32)
    bank = np.concatenate([bank, np.repeat(bank[:1], copies, axis=0)])
    queries = np.concatenate([bank[:2], rng.integers(-2, 3, size=(3, 4)).astype(np.float32)])
    first, second = (neighbours(bank, queries, k, backend) for backend in BACKENDS)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert first[1].shape == (len(queries), min(k, len(bank)))


def test_more_equal_rows_than_spare_candidates_come_in_order() -> None:
    bank = np.ones((500, 8), np.float32)
    bank[3] = -1
    for backend in BACKENDS:
        similarity, row = neighbours(bank, np.ones((1, 8), np.float32), 5, backend)
        assert row.tolist() == [[0, 1, 2, 4, 5]]
        np.testing.assert_allclose(similarity, 1, atol=1e-6)


def read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4, 0.0])
def test_tightly_packed_rows_are_told_apart_and_read_at_most_twice(
    noise: float, backend: Backend, tmp_path: Path
) -> None:
    rng = np.random.default_rng(6)
    centre = rng.normal(size=64)
    bank, queries = ((centre + noise * rng.normal(size=(n, 64))).astype(np.float32) for n in (3000, 40))
    bank[1500:1600] = bank[0]  # more equals than there are spare candidates
    np.save(tmp_path / "bank.npy", bank)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    before = read_bytes()
    similarity, row = neighbours(mapped, queries, 5, backend)
    assert read_bytes() - before < 2 * bank.nbytes + 40 * 21 * 64 * 4 + 100_000
    wide = [rows.astype(np.longdouble) for rows in (bank, queries)]
    unit = [rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)) for rows in wide]
    exact = unit[1] @ unit[0].T
    if noise:
        np.testing.assert_array_equal(row, np.argsort(-exact, axis=1, kind="stable")[:, :5])
    else:
        assert row.tolist() == [[0, 1, 2, 3, 4]] * 40
    np.testing.assert_allclose(similarity, np.take_along_axis(exact, row, axis=1).astype(float), atol=1e-7)


def test_permuting_the_bank_permutes_the_answer() -> None:
    rng = np.random.default_rng(1)
    bank, queries = rng.normal(size=(300, 12)).astype(np.float32), rng.normal(size=(20, 12)).astype(np.float32)
    order = rng.permutation(300)
    similarity, row = neighbours(bank, queries, 15)
    permuted_similarity, permuted_row = neighbours(bank[order], queries, 15)
    np.testing.assert_array_equal(order[permuted_row], row)
    np.testing.assert_array_equal(permuted_similarity, similarity)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mapped_bank_gives_the_same_to_the_bit(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "ROWS_PER_CHUNK", 64)
    rng = np.random.default_rng(3)
    bank = np.concatenate([rng.normal(size=(300, 12)), np.ones((40, 12))]).astype(np.float32)
    queries = np.concatenate([rng.normal(size=(6, 12)), np.ones((1, 12))]).astype(np.float32)
    np.save(tmp_path / "bank.npy", bank)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    for some in (slice(None), slice(100, None)):  # a part of a mapped array is not its file
        inside, outside = (neighbours(array[some], queries, 15, backend) for array in (bank, mapped))
        np.testing.assert_array_equal(inside[0], outside[0])
        np.testing.assert_array_equal(inside[1], outside[1])


@pytest.mark.parametrize("count", [1, 4, 9])
def test_many_queries_are_taken_in_passes_and_change_nothing(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    bank, queries = rng.normal(size=(100, 12)).astype(np.float32), rng.normal(size=(count, 12)).astype(np.float32)
    at_once = neighbours(bank, queries, 5)
    at_most = module.planned_bytes(100, 4, 12, 5)
    monkeypatch.setattr(module, "QUERIES_PER_PASS", 4)
    monkeypatch.setattr(chunked, "ROWS_PER_CHUNK", 30)
    told: list[int] = []
    in_passes = neighbours(bank, queries, 5, tick=lambda done, note="": told.append(done))
    np.testing.assert_array_equal(at_once[0], in_passes[0])
    np.testing.assert_array_equal(at_once[1], in_passes[1])
    assert told == sorted(told) and told[-1] == module.steps(100, count)
    assert module.planned_bytes(100, 10**6, 12, 5) - at_most < 12 * 5 * 10**6 + 4 * 1024 * 100  # the answers, a product


def test_no_query_is_no_answer_and_a_bank_that_shrinks_is_an_error(tmp_path: Path) -> None:
    bank = np.ones((20, 4), np.float32)
    similarity, row = neighbours(bank, bank[:0], 3)
    assert (similarity.shape, row.shape) == ((0, 3), (0, 3))
    np.save(tmp_path / "bank.npy", bank)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    os.truncate(tmp_path / "bank.npy", 200)
    with pytest.raises(UserError, match="was truncated"):
        neighbours(mapped, bank[:1], 3)


def test_a_long_search_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bank = np.random.default_rng(5).normal(size=(150, 8)).astype(np.float32)
    shared_neighbours(bank, bank[:6], 3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(chunked, "ROWS_PER_CHUNK", 64)
    monkeypatch.setattr("cgh_bench.core.progress.SECONDS_BETWEEN_LINES", 0.0)
    shared_neighbours(bank, bank[:6], 3)
    steps = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert steps == [f"search: {done}/156" for done in (64, 128, 150, 156)]


def test_the_planned_time_is_linear_in_rows_and_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking = iter(range(100))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticking))
    # A second to read 8,192 rows, one for each 256 queries among them, one for each four that are scored again.
    assert planned_seconds(16_384, 512, 16, 20) == 2 * (1 + 2) + 512 / 4
    assert planned_seconds(10, 3, 16, 20) == 3
