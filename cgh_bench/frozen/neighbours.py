"""Nearest neighbours by cosine similarity, exact: by faiss or torch, on a CPU or a GPU, with identical answers."""

import importlib.util
import time
from contextlib import ExitStack
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from cgh_bench.core import dist
from cgh_bench.core.device import arithmetic, pick_device
from cgh_bench.core.progress import Tick, progress
from cgh_bench.frozen import rows as chunked
from cgh_bench.frozen.rows import Floats, Indices, Rows

Backend = Literal["faiss", "torch"]

QUERIES_PER_PASS = 65_536
QUERIES_PER_PRODUCT = 1_024
SPARE_CANDIDATES = 16
NUMBERS_RESCORED = {"cpu": 2**19, "cuda": 2**24}
"""Numbers of candidates at a time: on a CPU they should stay in its cache."""
ROWS_COMPARED, QUERIES_COMPARED = 4_096, 256
ROWS_TIMED, QUERIES_TIMED, QUERIES_RESCORED = 8_192, 256, 4
ROUNDING = 1e-5
"""Two float32 sums of the products of a unit vector and a vector of length one differ by less than this."""
ROUNDING_OF_ROWS = 1.2e-7
"""The same for rounding two unit vectors to float32."""
ROUNDING_IN_DOUBLE = 2.5e-12
"""Cosines by sums in float64, in any order, and by sums without rounding differ by less, in up to 4,096 dimensions."""
TINY = 2.0**-40
"""Shorter rows count as this long; a row of zeros is similar to none. A power of two: `_exact` scales by those."""
LARGEST_K_OF_FAISS_GPU = 2_048
"""More neighbours are not selected there (wiki of facebookresearch/faiss, "Faiss on the GPU")."""
TO_HIGH, TO_LOW = 1.5 * 2.0**26, 1.5 * 2.0**6
"""Adding and subtracting them rounds a number below 1 to multiples of 2^-26, and one below 2^-27 to those of 2^-46."""


def default_backend() -> Backend:
    """Faiss where it is installed for this device (`faiss-gpu` for a GPU), else torch."""
    if importlib.util.find_spec("faiss") is None:
        return "torch"
    return "faiss" if device_of("faiss") == pick_device() else "torch"


def device_of(backend: Backend) -> torch.device:
    """Where a backend searches: faiss on a GPU only if it was built for one."""
    device = pick_device()
    if backend == "torch" or device.type == "cpu":
        return device
    import faiss

    return device if faiss.get_num_gpus() else torch.device("cpu")


def neighbours(
    bank: Floats, queries: Floats, k: int, backend: Backend | None = None, tick: Tick | None = None
) -> tuple[Floats, Indices]:
    """The `k` rows of `bank` most similar to each query by cosine, most similar first.

    The backend proposes some more than `k` candidates in float32; these are scored again in float64, by sums
    without rounding wherever the order of sums could change the answer, and ordered by similarity, then by row
    number. Queries whose candidates are too close to each other to be sure of are compared with every row like
    this, all in one more pass over the bank, so that its cost is bounded however tightly the rows are packed. So
    every backend and device gives the same answer, ties included, and a permutation of the queries or another chunk
    size changes nothing.

    Args:
        bank: (N, D), any norms; may be memory-mapped: it is read a chunk at a time, at most twice for every
            `QUERIES_PER_PASS` queries.
        queries: (Q, D), any norms; may be memory-mapped, too.
        k: at most N rows are returned.
        backend: default `default_backend()`.
        tick: is told how many of `steps` are done.

    Returns:
        similarities (Q, K) float32 and row numbers (Q, K) int64, K = min(k, N).
    """
    k, chosen = min(k, len(bank)), backend or default_backend()
    device = device_of(chosen)
    rows, found = Rows(bank, device), []
    with torch.inference_mode(), arithmetic("fp32", device):
        for start in range(0, max(1, len(queries)), QUERIES_PER_PASS):
            part = torch.tensor(queries[start : start + QUERIES_PER_PASS], device=device)
            of_pass = _beyond(steps(len(bank), start), tick) if tick else None
            found.append(_one_pass(rows, part, k, chosen, of_pass))
    similarity, row = (np.concatenate(parts) for parts in zip(*found, strict=True))
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


def _one_pass(bank: Rows, queries: Tensor, k: int, backend: Backend, tick: Tick | None) -> tuple[Floats, Indices]:
    """Similarities and row numbers (Q, k) of `queries`, few enough to be in memory."""
    similarity = queries.new_empty(len(queries), k)
    row = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    if not len(queries):
        return similarity.cpu().numpy(), row.cpu().numpy()
    spare = min(k + SPARE_CANDIDATES, len(bank))
    rows, radius = _candidates(bank, unit(queries), spare, backend, tick)
    unsure = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
    at_once = max(1, NUMBERS_RESCORED[queries.device.type] // (spare * queries.shape[1]))
    for start in range(0, len(queries), at_once):
        part = slice(start, start + at_once)
        scores, ordered = _rescored(bank, queries[part], rows[part])
        if spare < len(bank):
            unsure[part] = scores[:, k - 1] - scores[:, -1] <= ROUNDING * radius + ROUNDING_OF_ROWS
        similarity[part], row[part] = scores[:, :k], ordered[:, :k]
        if tick:
            tick(len(bank) + min(start + at_once, len(queries)))
    if unsure.any():
        scores, row[unsure] = _compared_with_all(bank, queries[unsure], k)
        similarity[unsure] = scores.float()
    return similarity.cpu().numpy(), row.cpu().numpy()


def shared_neighbours(bank: Floats, queries: Floats, k: int) -> tuple[Floats, Indices]:
    """The same on all processes (`dist`), each of which searches for its share of the queries.

    The first shows its progress, where the bank is more than one chunk.
    """
    mine = queries[dist.share(len(queries))]
    with ExitStack() as stack:
        shown = dist.rank() == 0 and len(bank) > chunked.ROWS_PER_CHUNK
        tick = stack.enter_context(progress("search", steps(len(bank), len(mine)))) if shown else None
        found = dist.gather_shares(neighbours(bank, mine, k, tick=tick))
    similarity, row = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return similarity, row


def planned_bytes(n: int, q: int, dim: int, k: int) -> int:
    """What `neighbours` needs at most beside what it is given; of memory-mapped arrays of any size only these pages."""
    chunk, queries = min(n, chunked.ROWS_PER_CHUNK), min(q, QUERIES_PER_PASS)
    spare = min(k + SPARE_CANDIDATES, n)
    unit = 4 * dim * (3 * chunk + 3 * queries)  # two chunks as read, one of unit rows; the queries, and the unsure
    split = 8 * dim * 4 * (min(n, ROWS_COMPARED) + min(q, QUERIES_COMPARED))
    product = 4 * min(q, QUERIES_PER_PRODUCT) * chunk
    merging = (4 + 8) * 4 * queries * spare  # similarities and rows: kept, found, joined and chosen
    rescoring = max(NUMBERS_RESCORED["cpu"], spare * dim) * (4 + 4 + 2 * 4 * 8)  # if all are rescored without rounding
    return unit + split + product + merging + rescoring + (4 + 8) * q * min(k, n)


def planned_seconds(n: int, q: int, dim: int, k: int) -> float:
    """About how long `neighbours` takes, by the backend's speed on a few made-up rows."""
    draw, backend, device = np.random.default_rng(0), default_backend(), pick_device()
    some, few = min(n, ROWS_TIMED), min(q, QUERIES_TIMED)
    made, asked = (draw.standard_normal((count, dim), np.float32) for count in (some, few))
    bank, queries, spare = Rows(made, device), torch.tensor(asked, device=device), min(k + SPARE_CANDIDATES, some)
    again = queries[:QUERIES_RESCORED]
    _rescored(bank, again, _candidates(bank, again, spare, backend, None)[0])[0].cpu()  # the first time is slower
    start = time.perf_counter()
    ((_, chunk),) = Rows(made, device).chunks()
    rows = unit(chunk)[:1].cpu()
    read = time.perf_counter()
    rows = _best(queries, chunk, spare, backend)[1].cpu()
    searched = time.perf_counter()
    _rescored(bank, again, rows[: len(again)].to(device))[0].cpu()
    rescored = time.perf_counter()
    each_row = ((read - start) * _passes(q) + (searched - read) * q / few) / some
    return n * each_row + (rescored - searched) * q / len(again)


def _candidates(bank: Rows, queries: Tensor, k: int, backend: Backend, tick: Tick | None) -> tuple[Tensor, Tensor]:
    """Row numbers (Q, k) of the best `k` by float32 arithmetic, and how far rows are from their centre.

    What is searched are the rows' differences from one centre: that takes the same from all similarities of a query,
    and leaves float32 its digits for what differs. The rows are in no particular order.
    """
    centre, radius = torch.zeros_like(queries[0]), torch.zeros((), device=queries.device)
    best, rows = queries.new_empty(len(queries), 0), torch.empty(0)
    buffer = queries.new_empty(min(chunked.ROWS_PER_CHUNK, len(bank)), queries.shape[1])
    for start, chunk in bank.chunks():
        centred = unit(chunk, out=buffer[: len(chunk)])
        if not start:
            centre = centred.mean(dim=0)
        centred -= centre
        radius = torch.maximum(radius, centred.norm(dim=1).max())
        similarity, row = _best(queries, centred, min(k, len(chunk)), backend)
        best = torch.cat([best, similarity], dim=1)
        rows = torch.cat([rows, row + start], dim=1) if start else row
        if best.shape[1] > k:
            best, kept = best.topk(k, dim=1, sorted=False)
            rows = rows.gather(1, kept)
        if tick:
            tick(start + len(chunk))
    return rows, radius


def _best(queries: Tensor, chunk: Tensor, k: int, backend: Backend) -> tuple[Tensor, Tensor]:
    """The `k` largest inner products of each query (Q, D) with the rows (N, D) of a chunk, and their rows, (Q, k)."""
    if backend == "faiss" and not queries.is_cuda:
        import faiss

        found = faiss.knn(queries.numpy(), chunk.numpy(), k, metric=faiss.METRIC_INNER_PRODUCT)
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])
    if backend == "faiss" and k <= LARGEST_K_OF_FAISS_GPU:
        import faiss
        import faiss.contrib.torch_utils  # lets it read tensors where they are

        resources, inner, number = faiss.StandardGpuResources(), faiss.METRIC_INNER_PRODUCT, queries.device.index
        similarity, row = faiss.knn_gpu(resources, queries, chunk, k, metric=inner, device=number)
        return similarity, row
    parts = [(part @ chunk.T).topk(k, dim=1, sorted=False) for part in torch.split(queries, QUERIES_PER_PRODUCT)]
    similarity, row = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return similarity, row


def unit(rows: Tensor, out: Tensor | None = None) -> Tensor:
    """`rows` (…, D) divided by their Euclidean norm (a row of zeros stays zero), in `out` if given."""
    return torch.div(rows, torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_(min=TINY), out=out)


def unit_rows(rows: Floats) -> Floats:
    """The same for an array."""
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.maximum(norm, np.float32(TINY))


class _Exact(NamedTuple):
    """Rows (…, D) scaled by a power of two to lengths from 1/2 to 1, as sums of two float64 parts."""

    high: Tensor
    """Multiples of 2^-26."""
    low: Tensor
    """Multiples of 2^-46, below 2^-27."""
    length: Tensor
    """(…, 1)"""


def _exact(rows: Tensor) -> _Exact:
    """Split float32 rows so that float64 adds their products without rounding, in any order and on any device.

    Sums of products of two high parts are multiples of 2^-52 up to 1; of a high and a low part (below 2^-27 each, so
    below 2^-21 together in D = 4,096 dimensions) multiples of 2^-72: 53 bits at most.
    """
    wide = rows.double()
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).clamp_(min=TINY)
    wide.mul_(torch.frexp(norm).mantissa.div_(norm))
    high = wide.add(TO_HIGH).sub_(TO_HIGH)
    low = wide.sub_(high).add_(TO_LOW).sub_(TO_LOW)
    squared = _dots(high, high) + 2 * _dots(high, low)
    return _Exact(high, low, squared.sqrt_().clamp_(min=0.5))


def _dots(these: Tensor, those: Tensor) -> Tensor:
    """The inner product of each row (…, D) with its partner, (…, 1)."""
    return (these * those).sum(dim=-1, keepdim=True)


def _cosines(queries: _Exact, rows: _Exact) -> Tensor:
    """Similarities (…, Q, N) of queries (…, Q, D) and rows (…, N, D), to the product of the low parts (1e-13)."""
    small = queries.high @ rows.low.mT + queries.low @ rows.high.mT
    return (queries.high @ rows.high.mT + small) / (queries.length * rows.length.mT)


def _rescored(bank: Rows, queries: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity of each query to its own candidate rows (Q, k), both ordered: best first, then by row."""
    rows = rows.sort(dim=1).values
    taken = bank.take(rows)
    similarity = _cosines_in_double(queries, taken)
    unsure = _rounding_matters(similarity)
    if unsure.any():
        asking = queries[unsure.nonzero()[:, 0]]
        similarity[unsure] = _cosines(_exact(asking[:, None]), _exact(taken[unsure][:, None]))[:, 0, 0]
    similarity, order = similarity.sort(dim=1, descending=True, stable=True)
    return similarity, rows.gather(1, order)


def _cosines_in_double(queries: Tensor, rows: Tensor) -> Tensor:
    """Similarities (Q, k) of queries (Q, D) to their own rows (Q, k, D), to `ROUNDING_IN_DOUBLE`."""
    these, those = queries.double()[:, :, None], rows.double()
    length = torch.linalg.vector_norm(these, dim=1).clamp_(min=TINY)
    lengths = torch.linalg.vector_norm(those, dim=2).clamp_(min=TINY)
    return (those @ these)[:, :, 0].div_(length).div_(lengths)


def _rounding_matters(similarity: Tensor) -> Tensor:
    """Whose place among a query's (Q, k), or whose value in float32, `ROUNDING_IN_DOUBLE` could change, (Q, k)."""
    ordered, place = similarity.sort(dim=1)
    close = ordered.diff(dim=1) <= 2 * ROUNDING_IN_DOUBLE
    tied = pad(close, (1, 0)) | pad(close, (0, 1))
    rounded = [(similarity + error).float() for error in (-ROUNDING_IN_DOUBLE, ROUNDING_IN_DOUBLE)]
    return (rounded[0] != rounded[1]) | torch.zeros_like(tied).scatter_(1, place, tied)


def _compared_with_all(bank: Rows, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same for the best `k` of all rows."""
    parts = torch.split(queries, QUERIES_COMPARED)
    best = [part.new_empty(len(part), 0, dtype=torch.float64) for part in parts]
    rows = [torch.empty(len(part), 0, dtype=torch.int64, device=part.device) for part in parts]
    for start, chunk in bank.chunks():
        for first, block in zip(
            range(start, len(bank), ROWS_COMPARED), torch.split(chunk, ROWS_COMPARED), strict=False
        ):
            exact, numbers = _exact(block), torch.arange(first, first + len(block), device=block.device)
            for i, part in enumerate(parts):
                joined = torch.cat([best[i], _cosines(_exact(part), exact)], dim=1)
                places = _largest(joined, min(k, first + len(block)))
                best[i] = joined.gather(1, places)
                rows[i] = torch.cat([rows[i], numbers.expand(len(part), -1)], dim=1).gather(1, places)
    return torch.cat(best), torch.cat(rows)


def _largest(values: Tensor, k: int) -> Tensor:
    """Where the `k` largest of each row of `values` (Q, n) are, the largest first, the first of equals first."""
    kth = values.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    above, equal = values > kth, values == kth
    fits = equal.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)
    places = (above | (equal & fits)).nonzero()[:, 1].view(len(values), k)
    order = values.gather(1, places).sort(dim=1, descending=True, stable=True).indices
    return places.gather(1, order)
