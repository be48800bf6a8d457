"""A number of each image: a query's average precision, the share of a pair's points found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cgh_bench.outcomes.base import Floats, Images, Ints, Outcomes, named, per_cent


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores(Outcomes):
    """A number of each image for each metric: a query's average precision, the share of a pair's points found."""

    KIND = "scores"
    target: Ints
    """(N,) The class of each image."""
    weight: Ints
    """(N,) How much it counts in metrics by "weight": its points."""
    value: Mapping[str, Floats]
    """For each metric, (N,); NaN where an image does not count."""

    def each(self, metric: str) -> Floats | None:
        """See `Outcomes`."""
        values = self.value[metric]
        return None if self.measures[metric] != "mean" or np.isnan(values).any() else values

    def measure(self, metric: str, counts: Ints) -> Floats:
        """The mean over images, over their weight, or over classes of the mean over their images."""
        by, known = self.measures[metric], ~np.isnan(self.value[metric])
        values, counts = np.where(known, self.value[metric], 0), counts * known
        if by == "class":
            member = self.target[:, None] == np.unique(self.target)
            sums, sizes = counts @ (member * values[:, None]), counts @ member.astype(np.int64)
            return np.nanmean(per_cent(sums, sizes) / 100, axis=1)
        drawn = counts * self.weight if by == "weight" else counts
        return drawn @ values / drawn.sum(axis=1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Outcomes`."""
        also = {f"value:{name}": values for name, values in self.value.items()}
        return {"target": self.target, "weight": self.weight, **also}

    @classmethod
    def restored(cls, arrays: Mapping[str, Any], **common: Any) -> Self:
        """See `Outcomes`."""
        value = named("value:", arrays)
        own = {name: array for name, array in arrays.items() if not name.startswith("value:")}
        return cls(**common, **own, value=value)

    def rows(self) -> Iterator[Sequence[Any]]:
        """One line per image."""
        yield ["image", "target", "weight", *self.value]
        for name, target, weight, *values in zip(
            self.images.ids, self.target, self.weight, *self.value.values(), strict=True
        ):
            yield [name, self.classes[target], weight, *(repr(float(value)) for value in values)]


def scores_of(images: Images, kind: str, values: Mapping[str, Floats]) -> Scores:
    """The scores of N images, all of one class `kind`: each metric is the mean of its `values` (N,)."""
    target, weight = np.zeros(len(images), np.int64), np.ones(len(images), np.int64)
    measures = dict.fromkeys(values, "mean")
    return Scores(images=images, classes=(kind,), measures=measures, target=target, weight=weight, value=values)
