"""Which means of a column differ by more than the spread of their runs allows for."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000


def welch_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The `CONFIDENCE` interval of mean(a) - mean(b) for two independent samples of at least two values each.

    Source: B. L. Welch, Biometrika 34 (1947), 28-35: unequal variances, Satterthwaite's degrees of freedom.
    """
    from scipy.stats import t

    difference = statistics.fmean(a) - statistics.fmean(b)
    parts = [statistics.variance(sample) / len(sample) for sample in (a, b)]
    if sum(parts) == 0:
        return difference, difference
    shares = [part / sum(parts) for part in parts]
    freedom = 1 / sum(share**2 / (len(sample) - 1) for share, sample in zip(shares, (a, b), strict=True))
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(sum(parts))
    return difference - half, difference + half


def paired_interval(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean of paired `differences` (N,) with its `CONFIDENCE` interval by the percentile bootstrap.

    It says what other images of the same kind might have changed, not what another training might have. Few values
    differ (images are right or wrong), so a resample is drawn as the counts of these values. The same on every call.

    Source: B. Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 7 (1979), 1-26.
    """
    values, counts = np.unique(differences, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(differences), counts / len(differences), size=RESAMPLES)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn @ values / len(differences), [tail, 100 - tail])
    return float(differences.mean()), float(low), float(high)


def ranks(samples: Sequence[Sequence[float]], higher_is_better: bool) -> list[int]:
    """1 for the best, 2 for the second best, 0 for the others, in the order of `samples`.

    The best are the sample of the best mean and all that its Welch interval does not separate from it; the second best
    likewise among the rest. No rank is given where it would say nothing: to a column in which some sample has a single
    value (an empty one stands for a missing cell and is left out), and to a group that has no sample behind it.
    """
    result = [0] * len(samples)
    left = [index for index, sample in enumerate(samples) if sample]
    if any(len(samples[index]) == 1 for index in left):
        return result
    sign = 1 if higher_is_better else -1
    left.sort(key=lambda index: -sign * statistics.fmean(samples[index]))
    for rank in (1, 2):
        level = [index for index in left if not _separated(samples[left[0]], samples[index])]
        left = [index for index in left if index not in level]
        if not left:
            break
        for index in level:
            result[index] = rank
    return result


def _separated(a: Sequence[float], b: Sequence[float]) -> bool:
    low, high = welch_interval(a, b)
    return not low <= 0 <= high
