"""A score of every class for each image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench.data.image_set import ImageSet
from cgh_bench.outcomes.base import Floats, Ints, Outcomes, images_of


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiLabel(Outcomes):
    """A score of every class for each image."""

    KIND = "multi-label"
    target: Ints
    """(N, C): 1 present, 0 absent, -1 not counted."""
    score: Floats
    """(N, C)"""

    def measure(self, metric: str, counts: Ints) -> Floats:
        """The mean over classes of their average precision, by one of three definitions of the area."""
        by_class = [self._precision(self.measures[metric], column, counts) for column in range(len(self.classes))]
        return 100 * np.nanmean(by_class, axis=0)

    def _precision(self, by: str, column: int, counts: Ints) -> Floats:
        """Average precision (B,) of one class, images of equal score together."""
        known = np.flatnonzero(self.target[:, column] >= 0)
        order = known[np.argsort(-self.score[known, column], kind="stable")]
        scores, present = self.score[order, column], self.target[order, column] == 1
        drawn = counts[:, order]
        seen, hits = drawn.cumsum(axis=1), (drawn * present).cumsum(axis=1)
        if by != "area":  # that of the sources of `svm` ranks equal scores in the order of the images
            last = np.append(np.diff(scores) != 0, True)
            seen, hits = seen[:, last], hits[:, last]
        total = hits[:, -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision, recall = np.where(seen > 0, hits / seen, 0), hits / total
        if by != "mean":
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        if by == "11 points":
            places = [(recall < tenth / 10 - 1e-9).sum(axis=1) for tenth in range(11)]
            padded = np.pad(precision, ((0, 0), (0, 1)))
            found = np.mean([padded[np.arange(len(place)), place] for place in places], axis=0)
        else:
            found = (precision * np.diff(recall, axis=1, prepend=0)).sum(axis=1)
        return np.where(total[:, 0] > 0, found, np.nan)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Outcomes`."""
        return {"target": self.target, "score": self.score}

    def rows(self) -> Iterator[Sequence[Any]]:
        """One line per image and class."""
        yield ["image", "class", "target", "score"]
        for name, targets, scores in zip(self.images.ids, self.target, self.score, strict=True):
            for label, target, score in zip(self.classes, targets, scores, strict=True):
                yield [name, label, target, repr(float(score))]


def multi_label(images: ImageSet, target: Ints, score: Floats, measures: Mapping[str, str]) -> MultiLabel:
    """The outcomes of scores (N, C); each of the `measures` is `mean`, `area` (made falling) or `11 points`."""
    return MultiLabel(images=images_of(images), classes=images.classes, measures=measures, target=target, score=score)
