"""What other images might have said: resamples of the images, and the tests that go with them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cgh_bench.outcomes import Outcomes
from cgh_bench.report.significance import CONFIDENCE, RESAMPLES, paired_interval

LEAST_IMAGES = 30
"""With fewer, no interval or p-value is given: their coverage is not what they claim."""
DRAWS = 1_000
"""Resamples of images for numbers that are no mean over images."""
CELLS_PER_PASS = 20_000_000

Floats = NDArray[np.float64]


def sign_flips(deltas: Floats) -> float:
    """The two-sided p-value of no difference: by chance each image's difference (N,) could as well be the other way.

    Where all that differ do so by the same amount this is McNemar's exact test, and is computed exactly; otherwise by
    10,000 draws, the same on every call.

    Sources: Q. McNemar, Psychometrika 12 (1947); R. A. Fisher, The Design of Experiments (1935), section 21.
    """
    from scipy.special import bdtr

    sizes, counts = np.unique(np.abs(deltas[deltas != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    if len(sizes) == 1:
        few = min((deltas > 0).sum(), (deltas < 0).sum())
        return float(min(1.0, 2 * bdtr(few, counts[0], 0.5)))
    ups = np.random.default_rng(0).binomial(counts, 0.5, (RESAMPLES, len(sizes)))
    sums = np.abs((2 * ups - counts) @ sizes)
    return float((1 + (sums >= abs(deltas.sum()) - 1e-9).sum()) / (1 + RESAMPLES))


def resampled(images: int, statistic: Callable[[NDArray[np.int64]], Floats], draws: int = DRAWS) -> Floats:
    """A `statistic` (B, N) -> (B,) of how often each of N images occurs, for `draws` resamples of the images."""
    draw, at_once = np.random.default_rng(0), max(1, CELLS_PER_PASS // images)
    parts = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    even = np.full(images, 1 / images)
    return np.concatenate([statistic(draw.multinomial(images, even, count)) for count in parts])


def percentiles(drawn: Floats) -> tuple[float, float]:
    """The `CONFIDENCE` interval of resampled differences."""
    share = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(drawn, [share, 100 - share])  # a small group may be drawn not at all
    return float(low), float(high)


def tail(drawn: Floats) -> float:
    """The two-sided p-value of no difference by resampled differences."""
    side = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (1 + side) / (1 + len(drawn))))


def interval(kept: Outcomes, metric: str) -> tuple[float, float] | None:
    """The `CONFIDENCE` interval of a metric over images; None where the answers do not give it, or too few images."""
    if metric not in kept.measures or len(kept.images) < LEAST_IMAGES:
        return None
    each = kept.each(metric)
    if each is not None:
        _, low, high = paired_interval(each)
        return low, high
    return percentiles(resampled(len(kept.images), lambda counts: kept.measure(metric, counts)))
