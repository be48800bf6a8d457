"""How well one metric ranks the checkpoints of a store as another does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError, unknown
from cgh_bench.report.cells import newest_data
from cgh_bench.report.significance import CONFIDENCE
from cgh_bench.results import Result

FEWEST = 5
"""Checkpoints below which ranks say nothing."""
RESAMPLES = 2_000

Values = dict[str, float]
"""One value per checkpoint id."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of the wanted metric with one other."""

    protocol: str
    metric: str
    checkpoints: int
    """That have both."""
    rho: float
    """-1 to 1; NaN for fewer than `FEWEST` checkpoints, or where all have one value."""
    low: float
    high: float
    """The `CONFIDENCE` interval, by the bootstrap over checkpoints; seeds of one recipe count as checkpoints."""


def correlations(results: Sequence[Result], wanted: str) -> list[Correlation]:
    """`wanted`, as `TASK.METRIC`, against every other metric with a checkpoint in common, the strongest first.

    For each checkpoint and protocol the mean over evaluation seeds counts, on the newest data; overridden settings do
    not.

    Raises:
        UserError: no result has `wanted`.
    """
    data = newest_data(results, {result.protocol for result in results})
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for result in results:
        if not result.overridden and result.data == data.get(result.protocol):
            for metric, value in result.metrics.items():
                found.setdefault((result.protocol, metric), {}).setdefault(result.checkpoint, {})[result.seed] = value
    columns = {
        key: {checkpoint: float(np.mean([*seeds.values()])) for checkpoint, seeds in of_each.items()}
        for key, of_each in found.items()
    }
    names = {f"{protocol.split('@')[0]}.{metric}": (protocol, metric) for protocol, metric in columns}
    if wanted not in names:
        if not names:
            raise UserError("no results yet; evaluate some checkpoints first: cgh-bench eval TASK --ckpt CKPT")
        raise unknown("metric", wanted, names)
    mine = columns.pop(names[wanted])
    pairs = [_correlation(key, mine, other) for key, other in columns.items() if mine.keys() & other.keys()]
    return sorted(pairs, key=lambda pair: (np.isnan(pair.rho), -abs(pair.rho)))


def _correlation(key: tuple[str, str], mine: Values, other: Values) -> Correlation:
    both = sorted(mine.keys() & other.keys())
    pairs = np.array([[mine[checkpoint], other[checkpoint]] for checkpoint in both])
    rho, low, high = _spearman(pairs) if len(both) >= FEWEST else (np.nan,) * 3
    return Correlation(*key, len(both), rho, low, high)


def _spearman(pairs: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's ρ of pairs (N, 2), with its interval; samples in which all have one value do not count."""
    rows = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    rhos = _rho(pairs[rows])
    tail = 100 * (1 - CONFIDENCE) / 2
    usable = rhos[np.isfinite(rhos)]
    low, high = np.percentile(usable, [tail, 100 - tail]) if len(usable) else (np.nan, np.nan)
    return float(_rho(pairs[None])[0]), float(low), float(high)


def _rho(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each of S samples (S, N, 2): the correlation of the ranks, equal values sharing their mean rank; (S,)."""
    from scipy.stats import rankdata

    ranks = rankdata(samples, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        rhos: NDArray[np.float64] = ranks.prod(axis=2).sum(axis=1) / np.sqrt((ranks**2).sum(axis=1).prod(axis=1))
    return rhos
