"""The order of several backbones: over tasks by ranks, over images by who is right where the other is wrong."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgh_bench.outcomes.classification import Classification
from cgh_bench.report.resampling import DRAWS
from cgh_bench.report.sides import Side, higher_is_better, main_metric, require_same_images
from cgh_bench.report.significance import CONFIDENCE, average_ranks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """Several backbones over all tasks together."""

    names: tuple[str, ...]
    mean_rank: Floats
    """(M,) 1 is best."""
    critical: float | None
    """Differences in mean rank below this are not significant (Nemenyi, 5 %); None for a single task."""
    wins: Floats
    """(M, M): the share that the row has right of the images that one of the two has right; NaN for none."""
    strength: Floats
    """(M,) log odds of winning such an image, zero on average (Bradley and Terry)."""
    low: Floats
    high: Floats
    """(M,) each: the interval of `strength`, over images."""


def rank(by_task: Sequence[Sequence[Side]]) -> Ranking:
    """Rank several backbones: over tasks by ranks, over images by who is right where the other is wrong.

    Sources: J. Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006);
    R. A. Bradley and M. E. Terry, Biometrika 39 (1952); D. R. Hunter, Annals of Statistics 32 (2004).
    """
    names = tuple(side.name for side in by_task[0])
    ranks, patterns = [], []
    for row in by_task:
        metric = main_metric(row[0])
        for other in row[1:]:
            require_same_images(row[0], other)
        values = np.array([np.mean(side.trainings(metric)) for side in row])
        ranks.append(average_ranks(-values if higher_is_better(row[0], metric) else values))
        firsts = [side.kept[0] for side in row]
        if hits := [kept.rank[:, 0] < 1 for kept in firsts if isinstance(kept, Classification)]:
            patterns.append(np.array(hits))
    wins = np.zeros((1, len(names), len(names)))
    drawn = np.zeros((DRAWS, len(names), len(names)))
    for right in patterns:
        kinds, counts = np.unique(right, axis=1, return_counts=True)
        beats = kinds[:, None] & ~kinds[None]  # (M, M, kinds): who is right where the other is wrong
        wins += np.einsum("ijk,k->ij", beats, counts)[None]
        total = counts.sum()
        resamples = np.random.default_rng(0).multinomial(total, counts / total, DRAWS)
        drawn += np.einsum("ijk,bk->bij", beats, resamples)
    (strength,), spread = bradley_terry(wins), bradley_terry(drawn)
    share = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(spread, [share, 100 - share], axis=0)
    both = wins[0] + wins[0].T
    rates = np.divide(wins[0], both, out=np.full_like(both, np.nan), where=both > 0)
    return Ranking(names, np.mean(ranks, axis=0), _critical(len(names), len(by_task)), rates, strength, low, high)


def _critical(models: int, count: int) -> float | None:
    if count < 2:
        return None
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(CONFIDENCE, models, math.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(models * (models + 1) / (6 * count)))


def bradley_terry(wins: Floats) -> Floats:
    """Log strengths (B, M), of mean zero, from wins (B, M, M) of row over column, by Hunter's MM steps.

    Half a win is added both ways, so that who never wins has a finite strength.
    """
    models = wins.shape[1]
    wins = wins + 0.5 * (1 - np.eye(models))
    games, won = wins + wins.transpose(0, 2, 1), wins.sum(axis=2)
    strength = np.ones(wins.shape[:2])
    for _ in range(200):
        strength = won / (games / (strength[:, :, None] + strength[:, None])).sum(axis=2)
        strength /= np.exp(np.log(strength).mean(axis=1, keepdims=True))
    return np.log(strength)
