"""Nearest neighbours by cosine similarity: exact by faiss or torch with identical answers, or by a faiss index."""

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core import dist
from cgh_bench.core.errors import UserError
from cgh_bench.core.progress import Tick, progress
from cgh_bench.frozen.backends import QUERIES_PER_BATCH, SEARCHES, Backend, Floats, Indices, Search, default_backend

ROWS_PER_CHUNK = 16_384
ROWS_PER_NORMALISATION = 1_024
QUERIES_PER_PASS = 65_536
QUERIES_PER_RESCORING = 4
SPARE_CANDIDATES = 16
ROWS_TIMED = 8_192
QUERIES_TIMED = 256
TRAINING_ROWS = 262_144
"""Rows of the bank, evenly spread, that an index with cells or codes is fitted to."""
ROUNDING = 1e-5
"""Two float32 sums of the products of a unit vector and a vector of length one differ by less than this."""
ROUNDING_OF_ROWS = 1.2e-7
"""The same for rounding two unit vectors to float32."""
ROWS_PER_PRODUCT, QUERIES_PER_PRODUCT = 4_096, 256
HIGH, LOW = 2.0**26, 2.0**46
"""See `_split`."""


def neighbours(
    bank: Floats, queries: Floats, k: int, backend: Backend | None = None, tick: Tick | None = None
) -> tuple[Floats, Indices]:
    """The `k` rows of `bank` most similar to each query by cosine, most similar first.

    The backend proposes some more than `k` candidates in float32; these are scored again to 1e-12, by sums without
    rounding, and ordered by similarity, then by row number. Queries whose candidates are too close to each other to be
    sure of are compared with every row like this, all in one more pass over the bank, so that its cost is bounded
    however tightly the rows are packed. So every backend gives the same answer, ties included, and a permutation of the
    queries or another chunk size changes nothing.

    Args:
        bank: (N, D), any norms; may be memory-mapped: it is read `ROWS_PER_CHUNK` rows at a time, at most twice
            for every `QUERIES_PER_PASS` queries.
        queries: (Q, D), any norms; may be memory-mapped, too.
        k: at most N rows are returned.
        backend: default `default_backend()`.
        tick: is told how many of `steps` are done.

    Returns:
        similarities (Q, K) float32 and row numbers (Q, K) int64, K = min(k, N).
    """
    k = min(k, len(bank))
    search = SEARCHES[backend or default_backend()]
    similarity, row = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), QUERIES_PER_PASS):
        part = slice(start, start + QUERIES_PER_PASS)
        of_pass = _beyond(steps(len(bank), start), tick) if tick else None
        _one_pass(bank, queries[part], search, (similarity[part], row[part]), of_pass)
    return similarity, row


def steps(n: int, q: int) -> int:
    """What the progress of `neighbours` counts to: every query, and every row of the bank each time that it is read."""
    return n * _passes(q) + q


def _passes(q: int) -> int:
    """How often the bank is read for `q` queries."""
    return -(-q // QUERIES_PER_PASS)


def _beyond(before: int, tick: Tick) -> Tick:
    """`tick` for work that comes after `before` steps."""

    def counted(done: int, note: str = "") -> None:
        tick(before + done, note)

    return counted


def _one_pass(bank: Floats, queries: Floats, search: Search, out: tuple[Floats, Indices], tick: Tick | None) -> None:
    """Write similarities and row numbers (Q, K) of `queries`, few enough to be in memory, into `out`."""
    similarity, row = out
    k = similarity.shape[1]
    spare = min(k + SPARE_CANDIDATES, len(bank))
    rows, radius = _candidates(bank, unit_rows(queries), spare, search, tick)
    unsure = np.zeros(len(queries), dtype=bool)
    for start in range(0, len(queries), QUERIES_PER_RESCORING):
        part = slice(start, start + QUERIES_PER_RESCORING)
        scores, ordered = _rescore(bank, queries[part], rows[part])
        if spare < len(bank):
            unsure[part] = scores[:, k - 1] - scores[:, -1] <= ROUNDING * radius + ROUNDING_OF_ROWS
        similarity[part], row[part] = scores[:, :k], ordered[:, :k]
        if tick:
            tick(len(bank) + min(start + QUERIES_PER_RESCORING, len(queries)))
    if unsure.any():
        similarity[unsure], row[unsure] = _compared_with_all(bank, queries[unsure], k)


def shared_neighbours(bank: Floats, queries: Floats, k: int) -> tuple[Floats, Indices]:
    """The same on all processes (`dist`), each of which searches for its share of the queries.

    The first shows its progress, where the bank is more than one chunk.
    """
    mine = queries[dist.share(len(queries))]
    with ExitStack() as stack:
        shown = dist.rank() == 0 and len(bank) > ROWS_PER_CHUNK
        tick = stack.enter_context(progress("search", steps(len(bank), len(mine)))) if shown else None
        found = dist.gather_shares(neighbours(bank, mine, k, tick=tick))
    similarity, row = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return similarity, row


def planned_bytes(n: int, q: int, dim: int, k: int) -> int:
    """What `neighbours` needs at most beside what it is given; of memory-mapped arrays of any size only these pages."""
    chunk, queries = min(n, ROWS_PER_CHUNK), min(q, QUERIES_PER_PASS)
    spare = min(k + SPARE_CANDIDATES, n)
    unit = 4 * dim * (2 * chunk + 2 * queries)  # a chunk as read and normalised; the queries and the unsure among them
    split = 8 * dim * 5 * (min(n, ROWS_PER_PRODUCT) + min(q, QUERIES_PER_PRODUCT))
    product = 4 * min(q, QUERIES_PER_BATCH) * chunk
    merging = 4 * (4 + 8) * queries * spare  # similarities and rows: kept, found, joined and chosen
    rescoring = QUERIES_PER_RESCORING * spare * dim * (4 + 5 * 8)
    return unit + split + product + merging + rescoring + (4 + 8) * q * min(k, n)


def planned_seconds(n: int, q: int, dim: int, k: int) -> float:
    """About how long `neighbours` takes, by the backend's speed on a few made-up rows."""
    draw = np.random.default_rng(0)
    some, few = min(n, ROWS_TIMED), min(q, QUERIES_TIMED)
    bank, queries = (draw.standard_normal((count, dim), np.float32) for count in (some, few))
    spare = min(k + SPARE_CANDIDATES, some)
    search = SEARCHES[default_backend()]
    _rescore(bank, queries[:1], search(queries[:1], bank, spare)[1])  # the first time is slower
    start = time.perf_counter()
    ((_, bank),) = unit_chunks(bank)
    read = time.perf_counter()
    _, rows = search(queries, bank, spare)
    searched = time.perf_counter()
    _rescore(bank, queries[:QUERIES_PER_RESCORING], rows[:QUERIES_PER_RESCORING])
    rescored = time.perf_counter()
    each_row = ((read - start) * _passes(q) + (searched - read) * q / few) / some
    return n * each_row + (rescored - searched) * q / min(few, QUERIES_PER_RESCORING)


def _candidates(bank: Floats, queries: Floats, k: int, search: Search, tick: Tick | None) -> tuple[Indices, float]:
    """Row numbers (Q, k) of the best `k` by the backend's float32 arithmetic, and how far rows are from their centre.

    What is searched are the rows' differences from one centre: that takes the same from all similarities of a query,
    and leaves float32 its digits for what differs. The rows are in no particular order.
    """
    centre, radius = np.zeros(bank.shape[1], np.float32), 0.0
    best: Floats = np.empty((len(queries), 0), np.float32)
    rows: Indices = np.empty((len(queries), 0), np.int64)
    for start, unit in unit_chunks(bank):
        if not start:
            centre = unit.mean(axis=0)
        chunk = np.subtract(unit, centre, out=unit)
        radius = max(radius, float(np.linalg.norm(chunk, axis=1).max()))
        similarity, row = search(queries, chunk, min(k, len(chunk)))
        best = np.concatenate([best, similarity], axis=1)
        rows = np.concatenate([rows, row + start], axis=1)
        if best.shape[1] > k:
            keep = np.argpartition(-best, k - 1, axis=1)[:, :k]
            best, rows = np.take_along_axis(best, keep, axis=1), np.take_along_axis(rows, keep, axis=1)
        if tick:
            tick(start + len(chunk))
    return rows, radius


def _rescore(bank: Floats, queries: Floats, rows: Indices) -> tuple[NDArray[np.float64], Indices]:
    """Similarity of each query to its own candidate rows (Q, k), both ordered: best first, then by row."""
    similarity = _products("qd,qkd->qk", _split(queries), _split(_taken(bank, rows)))
    order = np.lexsort((rows, -similarity), axis=1)
    return np.take_along_axis(similarity, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _compared_with_all(bank: Floats, queries: Floats, k: int) -> tuple[NDArray[np.float64], Indices]:
    """The same for the best `k` of all rows."""
    best = np.empty((len(queries), 0), np.float64)
    rows: Indices = np.empty((len(queries), 0), np.int64)
    for start, block in _blocks(bank):
        wide, kept = _split(block), min(k, start + len(block))
        joined, joined_rows = np.empty((len(queries), kept)), np.empty((len(queries), kept), np.int64)
        for first in range(0, len(queries), QUERIES_PER_PRODUCT):
            few = _split(queries[first : first + QUERIES_PER_PRODUCT])
            for i, similarity in enumerate(_products("qd,nd->qn", few, wide), first):
                largest = _largest(similarity, k)
                both, both_rows = np.append(best[i], similarity[largest]), np.append(rows[i], largest + start)
                order = np.argsort(-both, kind="stable")[:kept]
                joined[i], joined_rows[i] = both[order], both_rows[order]
        best, rows = joined, joined_rows
    return best, rows


def _split(rows: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit rows (…, D) as a sum of multiples of 1 / HIGH and of 1 / LOW, whose products float64 adds without rounding.

    Sums of products of the first kind are multiples of 2^-52 below 2; of the first and the second kind (below 2^-27
    each, so below 2^-21 together in D = 4,096 dimensions) multiples of 2^-72: 53 bits at most, in any order.
    """
    wide = rows.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
    high = np.rint(wide * HIGH) / HIGH
    wide -= high
    return high, np.rint(wide * LOW) / LOW


def _products(
    axes: str, queries: tuple[NDArray[np.float64], ...], rows: tuple[NDArray[np.float64], ...]
) -> NDArray[np.float64]:
    """The inner products, to the product of the two low parts (1e-13)."""
    (high, low), (row_high, row_low) = queries, rows
    product = partial(np.einsum, axes, optimize=True)
    small = product(high, row_low) + product(low, row_high)
    found: NDArray[np.float64] = product(high, row_high) + small
    return found


def _blocks(bank: Floats) -> Iterator[tuple[int, Floats]]:
    """`_chunks` in parts of `ROWS_PER_PRODUCT`."""
    for start, chunk in _chunks(bank):
        for first in range(0, len(chunk), ROWS_PER_PRODUCT):
            yield start + first, chunk[first : first + ROWS_PER_PRODUCT]


def _largest(values: NDArray[np.float64], k: int) -> Indices:
    """Where the `k` largest are, the largest first, the first of equals first."""
    places: Indices = np.arange(len(values))
    if k < len(values):
        places = np.flatnonzero(values >= np.partition(values, -k)[-k])
    return places[np.argsort(-values[places], kind="stable")[:k]]


def _chunks(bank: Floats) -> Iterator[tuple[int, Floats]]:
    """The rows, `ROWS_PER_CHUNK` at a time, with the number of the first; a chunk is overwritten by the next.

    A memory-mapped bank is read from its file, as mapped pages would pile up in memory and cost a fault each.
    """
    if not _is_mapped(bank):
        for start in range(0, len(bank), ROWS_PER_CHUNK):
            yield start, bank[start : start + ROWS_PER_CHUNK]
        return
    buffer = np.empty((min(ROWS_PER_CHUNK, len(bank)), bank.shape[1]), bank.dtype)
    with _opened(bank) as file:
        file.seek(bank.offset)
        for start in range(0, len(bank), ROWS_PER_CHUNK):
            chunk = buffer[: len(bank) - start]
            _require_read(file.readinto(chunk.data), chunk, bank)
            yield start, chunk


def _taken(bank: Floats, rows: Indices) -> Floats:
    """`bank[rows]`, (Q, k, D), for few rows of many."""
    if not _is_mapped(bank):
        return bank[rows]
    taken = np.empty((rows.size, bank.shape[1]), bank.dtype)
    with _opened(bank) as file:
        for row, out in zip(rows.reshape(-1).tolist(), taken, strict=True):
            _require_read(os.preadv(file.fileno(), [out.data], bank.offset + row * out.nbytes), out, bank)
    return taken.reshape(*rows.shape, bank.shape[1])


def _is_mapped(bank: Floats) -> "TypeGuard[np.memmap[Any, Any]]":
    """Whether `bank` is the whole of a read-only file, row after row."""
    mapped = isinstance(bank, np.memmap) and isinstance(bank.base, mmap.mmap) and bank.mode == "r"
    return mapped and bank.flags.c_contiguous


def _opened(bank: "np.memmap[Any, Any]") -> BufferedReader:
    assert bank.filename is not None
    return Path(bank.filename).open("rb")


def _require_read(count: int, into: Floats, bank: "np.memmap[Any, Any]") -> None:
    if count != into.nbytes:
        raise UserError(f"{bank.filename} is shorter than it was; remove its folder, so that it is made again")


def unit_rows(rows: Floats) -> Floats:
    """`rows` (…, D) divided by their Euclidean norm (a row of zeros stays zero)."""
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Floats = rows / np.maximum(norm, np.float32(1e-12))
    return unit


def unit_chunks(bank: Floats) -> Iterator[tuple[int, Floats]]:
    """`_chunks` with every row divided by its norm."""
    buffer: Floats = np.empty((min(ROWS_PER_CHUNK, len(bank)), bank.shape[1]), np.float32)
    for start, chunk in _chunks(bank):
        for first in range(0, len(chunk), ROWS_PER_NORMALISATION):
            part = slice(first, first + ROWS_PER_NORMALISATION)
            buffer[part][: len(chunk) - first] = unit_rows(chunk[part])
        yield start, buffer[: len(chunk)]


def approximate_neighbours(bank: Floats, queries: Floats, k: int, index: str, search: str) -> tuple[Floats, Indices]:
    """Most of the `k` rows of `bank` most similar to each query by cosine.

    Args:
        bank: (N, D), any norms; may be memory-mapped: read in chunks. The index itself is in memory.
        queries: (Q, D), any norms.
        k: at most N.
        index: what faiss's `index_factory` builds: `IVF4096,SQ8`, `HNSW32`, ….
        search: what its `ParameterSpace` sets: `nprobe=32`, `efSearch=128`, ….

    Returns:
        similarities (Q, K) float32, best first, and row numbers (Q, K) int64. Where the index found fewer, the rest is
        row 0 at similarity -inf.

    Raises:
        UserError: faiss is absent, or does not know such an index or setting.
    """
    try:
        import faiss
    except ImportError:
        raise UserError("an approximate index needs faiss; pip install faiss-cpu") from None
    k = min(k, len(bank))
    try:
        built = faiss.index_factory(bank.shape[1], index, faiss.METRIC_INNER_PRODUCT)
        faiss.ParameterSpace().set_index_parameters(built, search)  # type: ignore[arg-type]
        if not built.is_trained:
            sample = np.linspace(0, len(bank) - 1, min(TRAINING_ROWS, len(bank)), dtype=np.int64)
            built.train(unit_rows(bank[sample]))
        for _, chunk in unit_chunks(bank):
            built.add(chunk)
    except RuntimeError as error:
        told = " ".join(str(error).split()).rpartition("failed: ")[2][-200:]  # before it, faiss's own source
        raise UserError(
            f"faiss cannot use index {index!r} with search {search!r} on {len(bank)} rows: {told}"
        ) from None
    similarity, row = built.search(unit_rows(queries), k)
    similarity[row < 0] = -np.inf
    return similarity, np.maximum(row, 0)


def recall(bank: Floats, queries: Floats, found: tuple[Floats, Indices]) -> float:
    """The share of the exact nearest rows that were found, over all queries."""
    similarity, row = found
    _, exact = neighbours(bank, queries, row.shape[1])
    hits = [len(np.intersect1d(e, r[s > -np.inf])) for e, r, s in zip(exact, row, similarity, strict=True)]
    return sum(hits) / exact.size
