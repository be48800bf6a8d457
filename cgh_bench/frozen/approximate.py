"""Nearest neighbours by an index of faiss: most of them, faster than all."""

import numpy as np
import torch

from cgh_bench.core.errors import UserError, one_line
from cgh_bench.frozen.neighbours import neighbours, unit_rows
from cgh_bench.frozen.rows import Floats, Indices, Rows

TRAINING_ROWS = 262_144
"""Rows of the bank, evenly spread, that an index with cells or codes is fitted to."""


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
        raise UserError("an approximate index needs faiss: pip install faiss-cpu") from None
    k = min(k, len(bank))
    try:
        built = faiss.index_factory(bank.shape[1], index, faiss.METRIC_INNER_PRODUCT)
        faiss.ParameterSpace().set_index_parameters(built, search)  # type: ignore[arg-type]
        if not built.is_trained:
            sample = np.linspace(0, len(bank) - 1, min(TRAINING_ROWS, len(bank)), dtype=np.int64)
            built.train(unit_rows(bank[sample]))
        for _, chunk in Rows(bank, torch.device("cpu")).chunks():
            built.add(unit_rows(chunk.numpy()))
    except RuntimeError as error:
        told = one_line(error).rpartition("failed: ")[2][-200:]  # before it, faiss's own source
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
