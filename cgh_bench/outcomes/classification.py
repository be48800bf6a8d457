"""One class for each image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cgh_bench.data.image_set import ImageSet
from cgh_bench.outcomes.base import Floats, Ints, Outcomes, images_of, named, per_cent

WORST_GROUP = "worst_group"
"""Top-1 of the group that has the lowest, in per cent."""
MOST_GROUPS = 50
"""Groups with a metric of their own; any others count for `worst_group` only."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Classification(Outcomes):
    """One class for each image, in R repeats (1 where a task has none)."""

    KIND = "classification"
    target: Ints
    """(N,)"""
    predicted: Ints
    """(N, R)"""
    rank: Ints
    """(N, R): how many classes come before the true one."""
    right: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Metrics that are the share of other answers that are right, with these (N,): `top1_k10`, …."""
    group: Ints | None = None
    """(N,) The group of each image, where the dataset has groups: an index into the names of `group_` metrics."""

    def each(self, metric: str) -> Floats | None:
        """Per cent of the repeats in which the image is right."""
        if metric in self.right:
            return np.where(self.right[metric], 100.0, 0.0)
        limit = {"top1": 1, "top5": 5}.get(self.measures[metric])
        if limit is None:
            return None
        return 100 * (self.rank < limit).mean(axis=1, dtype=np.float64)

    def measure(self, metric: str, counts: Ints) -> Floats:
        """See `Outcomes`."""
        values = self.each(metric)
        if values is not None:
            return counts @ values / counts.sum(axis=1)
        by = self.measures[metric]
        hits = self.rank < 1
        if self.group is not None and by.startswith("group"):
            shares = self._by_group(counts, self.group)
            if by == "group":  # the worst
                return np.nanmin(shares, axis=1)
            return shares[:, int(by.removeprefix("group "))]
        if by == "top1_std":
            return np.std(100 * (counts @ hits) / counts.sum(axis=1)[:, None], axis=1, ddof=1)
        if by == "class_balanced":
            order = np.argsort(self.target, kind="stable")
            drawn, starts = counts[:, order], np.flatnonzero(np.diff(self.target[order], prepend=-1))
            total = np.add.reduceat(drawn, starts, axis=1)
            repeats = [per_cent(np.add.reduceat(drawn * hit, starts, axis=1), total) for hit in hits[order].T]
            return np.mean([np.nanmean(shares, axis=1) for shares in repeats], axis=0)
        return np.array([100 * _agreement(by, *(np.repeat(a, c) for a in self._pair)) for c in counts])

    def _by_group(self, counts: Ints, group: Ints) -> Floats:
        """Top-1 (B, K) of each group, the mean over repeats; NaN for one that has no image among those counted."""
        member = (group[:, None] == np.arange(group.max() + 1)).astype(np.int64)
        right = counts @ (member * (self.rank < 1).mean(axis=1, dtype=np.float64)[:, None])
        return per_cent(right, counts @ member)

    @property
    def _pair(self) -> tuple[Ints, Ints]:
        return self.target, self.predicted[:, 0]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Outcomes`."""
        also = {f"right:{name}": values for name, values in self.right.items()}
        grouped = {} if self.group is None else {"group": self.group}
        return {"target": self.target, "predicted": self.predicted, "rank": self.rank, **grouped, **also}

    @classmethod
    def restored(cls, arrays: Mapping[str, Any], **common: Any) -> Self:
        """See `Outcomes`."""
        right = named("right:", arrays)
        own = {name: array for name, array in arrays.items() if not name.startswith("right:")}
        return cls(**common, **own, right=right)

    def rows(self) -> Iterator[Sequence[Any]]:
        """One line per image and repeat."""
        yield ["image", "target", "predicted", "rank", *(["repeat"] if self.rank.shape[1] > 1 else [])]
        for repeat, (predicted, ranks) in enumerate(zip(self.predicted.T, self.rank.T, strict=True)):
            for name, true, given, rank in zip(self.images.ids, self.target, predicted, ranks, strict=True):
                line = [name, self.classes[true], self.classes[given], rank]
                yield [*line, repeat] if self.rank.shape[1] > 1 else line


def _agreement(by: str, target: Ints, predicted: Ints) -> float:
    from sklearn import metrics

    score = {
        "NMI": metrics.normalized_mutual_info_score,
        "AMI": metrics.adjusted_mutual_info_score,
        "ARI": metrics.adjusted_rand_score,
    }[by]
    return float(score(target, predicted))


def classification(
    images: ImageSet,
    predicted: NDArray[Any],
    rank: NDArray[Any] | None = None,
    measures: Mapping[str, str] | None = None,
    right: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Classification:
    """The outcomes of a classifier of `images`.

    Args:
        images: with one label each.
        predicted: (N,) or (N, R) classes.
        rank: of the true class, of the same shape; without it, 0 where right and 1 where wrong.
        measures: what gives which metric; default: top-1, top-5 (of more than five classes) and the mean over classes.
            Where the images have groups, top-1 of the worst and of each (`group_NAME`) are added.
        right: see `Classification`.
    """
    predicted = predicted.reshape(len(images), -1).astype(np.int64)
    ranks = predicted != images.labels[:, None] if rank is None else rank.reshape(predicted.shape)
    if measures is None:
        top5 = {"top5": "top5"} if rank is not None and len(images.classes) > 5 else {}
        measures = {"top1": "top1", **top5, "class_balanced": "class_balanced"}
    groups = images.groups if "top1" in measures.values() else None
    if groups:
        measures = {**measures, WORST_GROUP: "group"}
        measures |= {f"group_{name}": f"group {place}" for place, name in enumerate(groups.names[:MOST_GROUPS])}
    return Classification(
        images=images_of(images),
        classes=images.classes,
        measures={**measures, **dict.fromkeys(right or {}, "right")},
        target=images.labels,
        predicted=predicted,
        rank=ranks.astype(np.int64),
        right=right or {},
        group=groups.of if groups else None,
    )
