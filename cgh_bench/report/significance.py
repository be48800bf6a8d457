"""Which means of a column differ by more than the spread of their runs explains."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000


def welch_half_widths(samples: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Half the width of the `CONFIDENCE` interval of mean(a) - mean(b), for every two of S independent samples, (S, S).

    NaN if either has a single value; 0 if neither has any spread.

    Source: B. L. Welch, Biometrika 34 (1947), 28-35: unequal variances, Satterthwaite's degrees of freedom. It is what
    `scipy.stats.ttest_ind` says of one pair, for all pairs at once and without the second that its import takes.
    """
    from scipy.special import stdtrit

    n = np.array([len(sample) for sample in samples], float)
    variances = [statistics.variance(sample) if len(sample) > 1 else math.nan for sample in samples]
    part = np.array(variances) / n
    with np.errstate(invalid="ignore", divide="ignore"):
        both, shares = part[:, None] + part, part**2 / (n - 1)
        freedom = both**2 / (shares[:, None] + shares)
        halves: NDArray[np.float64] = stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(both)
    return np.where(both == 0, 0.0, halves)


def mean_interval(sample: Sequence[float]) -> tuple[float, float]:
    """Student's `CONFIDENCE` interval of the mean of two or more values."""
    from scipy.special import stdtrit

    half = stdtrit(len(sample) - 1, (1 + CONFIDENCE) / 2) * statistics.stdev(sample) / math.sqrt(len(sample))
    mean = statistics.fmean(sample)
    return mean - half, mean + half


def paired_interval(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean of paired `differences` (N,) with its `CONFIDENCE` interval by the percentile bootstrap.

    It says what other images of the same kind might have changed, not what another training might have. The same on
    every call. The few distinct values (images are right or wrong) make it a draw of counts, at no cost per image;
    `scipy.stats.bootstrap` draws every image again.

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
    likewise among the rest. An empty sample stands for a missing cell and is left out. There are no ranks in a column
    in which some sample has a single value, and none for a group with no sample behind it.
    """
    result = [0] * len(samples)
    places = [place for place, sample in enumerate(samples) if sample]
    if not places or any(len(samples[place]) == 1 for place in places):
        return result
    means = [statistics.fmean(samples[place]) for place in places]
    halves = welch_half_widths([samples[place] for place in places])
    left = sorted(range(len(places)), key=means.__getitem__, reverse=higher_is_better)
    for rank in (1, 2):
        level = [index for index in left if abs(means[left[0]] - means[index]) <= halves[left[0], index]]
        left = [index for index in left if index not in level]
        if not left:
            break
        for index in level:
            result[places[index]] = rank
    return result


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of `values` (…, M) along the last axis: 1 for the smallest, equal values share the mean of their ranks."""
    below = (values[..., :, None] > values[..., None, :]).sum(axis=-1)
    equal = (values[..., :, None] == values[..., None, :]).sum(axis=-1)
    return below + (equal + 1) / 2
