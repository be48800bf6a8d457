"""Exact nearest neighbours by cosine similarity: faiss or torch, the bank streamed, the answers identical."""

import importlib.util
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cgh_bench.device import pick_device

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Backend = Literal["faiss", "torch"]

ROWS_PER_CHUNK = 65_536
QUERIES_PER_BATCH = 1_024
QUERIES_PER_RESCORING = 16
SPARE_CANDIDATES = 16
ROUNDING = 1e-5
"""Two backends' float32 similarities of unit vectors differ by less than this (2048 products, each rounded to 6e-8)."""


def default_backend() -> Backend:
    """Faiss where it is installed, else torch."""
    return "faiss" if importlib.util.find_spec("faiss") else "torch"


def neighbours(bank: Floats, queries: Floats, k: int, backend: Backend | None = None) -> tuple[Floats, Indices]:
    """The `k` rows of `bank` most similar to each query by cosine, most similar first.

    The backend proposes some more than `k` candidates in float32; these are scored again in float64 and ordered by
    similarity, then by row number. So every backend gives the same answer, ties included, and a permutation of the
    queries or another chunk size changes nothing.

    Args:
        bank: (N, D), any norms; may be memory-mapped: it is read once, `ROWS_PER_CHUNK` rows at a time.
        queries: (Q, D), any norms.
        k: at most N rows are returned.
        backend: default `default_backend()`.

    Returns:
        similarities (Q, K) float32 and row numbers (Q, K) int64, K = min(k, N).
    """
    k = min(k, len(bank))
    spare = min(k + SPARE_CANDIDATES, len(bank))
    queries = _unit(queries)
    rows = _candidates(bank, queries, spare, SEARCHES[backend or default_backend()])
    similarity, row = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), QUERIES_PER_RESCORING):
        part = slice(start, start + QUERIES_PER_RESCORING)
        scores, ordered = _rescore(bank, queries[part], rows[part])
        if spare < len(bank):
            for i in np.flatnonzero(scores[:, k - 1] - scores[:, -1] <= ROUNDING):
                scores[i, :k], ordered[i, :k] = _exhaustive(bank, queries[start + i], k)
        similarity[part], row[part] = scores[:, :k], ordered[:, :k]
    return similarity, row


def _candidates(bank: Floats, queries: Floats, k: int, search: "Search") -> Indices:
    """Row numbers (Q, k) of the best `k` by the backend's float32 arithmetic, in no particular order."""
    best: Floats = np.empty((len(queries), 0), np.float32)
    rows: Indices = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(bank), ROWS_PER_CHUNK):
        chunk = _unit(bank[start : start + ROWS_PER_CHUNK])
        similarity, row = search(queries, chunk, min(k, len(chunk)))
        best = np.concatenate([best, similarity], axis=1)
        rows = np.concatenate([rows, row + start], axis=1)
        if best.shape[1] > k:
            keep = np.argpartition(-best, k - 1, axis=1)[:, :k]
            best, rows = np.take_along_axis(best, keep, axis=1), np.take_along_axis(rows, keep, axis=1)
    return rows


def _rescore(bank: Floats, queries: Floats, rows: Indices) -> tuple[NDArray[np.float64], Indices]:
    """Similarity in float64 of each query to its own candidate rows (Q, k), both ordered: best first, then by row."""
    candidates = _unit(bank[rows]).astype(np.float64)
    similarity = np.einsum("qkd,qd->qk", candidates, queries.astype(np.float64))
    order = np.lexsort((rows, -similarity), axis=1)
    return np.take_along_axis(similarity, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _exhaustive(bank: Floats, query: Floats, k: int) -> tuple[NDArray[np.float64], Indices]:
    """The same against every row, for a query with more near-ties at rank `k` than there were spare candidates."""
    similarity = np.concatenate(
        [
            np.einsum(
                "nd,d->n", _unit(bank[start : start + ROWS_PER_CHUNK]).astype(np.float64), query.astype(np.float64)
            )
            for start in range(0, len(bank), ROWS_PER_CHUNK)
        ]
    )
    order = np.lexsort((np.arange(len(bank)), -similarity))[:k]
    return similarity[order], order


def _unit(rows: Floats) -> Floats:
    """`rows` (…, D) divided by their Euclidean norm (a row of zeros stays zero)."""
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Floats = rows / np.maximum(norm, np.float32(1e-12))
    return unit


def _search_faiss(queries: Floats, chunk: Floats, k: int) -> tuple[Floats, Indices]:
    """The exact search of faiss, on the GPU where faiss sees one (a branch that was never run on a GPU)."""
    import faiss

    if faiss.get_num_gpus():
        similarity, row = faiss.knn_gpu(
            faiss.StandardGpuResources(), queries, chunk, k, metric=faiss.METRIC_INNER_PRODUCT
        )
    else:
        similarity, row = faiss.knn(queries, chunk, k, metric=faiss.METRIC_INNER_PRODUCT)
    return similarity, row


def _search_torch(queries: Floats, chunk: Floats, k: int) -> tuple[Floats, Indices]:
    """A matrix product and `topk`, `QUERIES_PER_BATCH` queries at a time."""
    device = pick_device()
    columns = torch.from_numpy(chunk).to(device).T
    parts = [
        (torch.from_numpy(queries[start : start + QUERIES_PER_BATCH]).to(device) @ columns).topk(k)
        for start in range(0, len(queries), QUERIES_PER_BATCH)
    ]
    similarity, row = (torch.cat(columns).cpu().numpy() for columns in zip(*parts, strict=True))
    return similarity, row


Search = Callable[[Floats, Floats, int], tuple[Floats, Indices]]
SEARCHES: dict[Backend, Search] = {"faiss": _search_faiss, "torch": _search_torch}
