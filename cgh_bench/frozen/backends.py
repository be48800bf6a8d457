"""Exact search among the rows that are in memory, by faiss or torch."""

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cgh_bench.core.dist import pick_device

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Backend = Literal["faiss", "torch"]
Search = Callable[[Floats, Floats, int], tuple[Floats, Indices]]
"""(queries (Q, D), rows (N, D), k) to the k largest inner products of each query and their rows, (Q, k) each."""

QUERIES_PER_BATCH = 1_024


def default_backend() -> Backend:
    """Faiss where it is installed, else torch."""
    return "faiss" if importlib.util.find_spec("faiss") else "torch"


def _search_faiss(queries: Floats, chunk: Floats, k: int) -> tuple[Floats, Indices]:
    """The exact search of faiss."""
    import faiss

    if devices := faiss.get_num_gpus():
        return _search_faiss_gpus(queries, chunk, k, devices)
    similarity, row = faiss.knn(queries, chunk, k, metric=faiss.METRIC_INNER_PRODUCT)
    return similarity, row


def _search_faiss_gpus(queries: Floats, chunk: Floats, k: int, devices: int) -> tuple[Floats, Indices]:
    """The same, a part of the chunk on each GPU. It was run on one GPU, never on several."""
    import faiss

    starts = np.linspace(0, len(chunk), min(devices, len(chunk)) + 1, dtype=np.int64)

    def search(device: int) -> tuple[Floats, Indices]:
        part = chunk[starts[device] : starts[device + 1]]
        similarity, row = faiss.knn_gpu(
            faiss.StandardGpuResources(),
            queries,
            part,
            min(k, len(part)),
            metric=faiss.METRIC_INNER_PRODUCT,
            device=device,
        )
        return similarity, row + starts[device]

    with ThreadPoolExecutor(devices) as pool:
        similarity, row = zip(*pool.map(search, range(len(starts) - 1)), strict=True)
    return np.concatenate(similarity, axis=1), np.concatenate(row, axis=1)


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


SEARCHES: dict[Backend, Search] = {"faiss": _search_faiss, "torch": _search_torch}
