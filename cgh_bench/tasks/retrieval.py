"""Instance retrieval: the images of a gallery, ranked by cosine similarity to each query; right is the query's class.

Every rank counts, so the whole gallery is ranked. Of equally similar images the earlier comes first.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair, ImageSet
from cgh_bench.data.transform import AS_IS, EvalTransform
from cgh_bench.frozen.selection import require_one_label
from cgh_bench.tasks.base import FeatureTask, Folders, Metric

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint

QUERIES_AT_A_TIME = 256


@dataclass(frozen=True)
class Retrieval(FeatureTask):
    """Rank the train images by their similarity to each val image, or the val images by their similarity to each other.

    mAP over queries, the share of queries with a right image among the first 1, 5 and 10, and the mean of 1 / the rank
    of the first right one. `queries.csv` in the run's folder has every query, the worst first.
    """

    METRICS: ClassVar = (Metric("mAP"), Metric("R@1"), Metric("R@5"), Metric("R@10"), Metric("MRR"))

    gallery: Literal["train", "others"] = "train"
    """What is searched: the train images, or the other val images."""

    def sets(self, data: DataPair) -> Sequence[tuple[ImageSet, EvalTransform]]:
        """The gallery and the queries, or what is both."""
        both = (data.train, data.val) if self.gallery == "train" else (data.val,)
        return [(images, self.transform) for images in both]

    def check(self, data: DataPair) -> None:
        """Refuse a multi-label dataset, a single class, a gallery that is the queries, and nothing to find."""
        require_one_label(data.val)
        if self.gallery == "train":
            super().check(data)
            findable = np.isin(data.val.labels, data.train.labels)
        else:
            findable = np.bincount(data.val.labels)[data.val.labels] > 1
        if not findable.any():
            where = data.train.name if self.gallery == "train" else f"the others of {data.val.name}"
            raise UserError(f"no image of {data.val.name} has one of its class in {where}; there is nothing to find")

    def effort(self, checkpoint: "Checkpoint", data: DataPair) -> list[str]:
        """Memory of the ranking."""
        size = len(data.train if self.gallery == "train" else data.val)
        megabytes = (size * self.width(checkpoint) * 4 + 20 * QUERIES_AT_A_TIME * size) / 1e6
        return [
            f"ranking: {size:,} images for each of {len(data.val):,} queries, at most {megabytes:,.0f} MB of memory"
        ]

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters. Queries without a right image in the gallery count for nothing."""
        from cgh_bench.outcomes.base import images_of, some_of
        from cgh_bench.outcomes.scores import Scores

        banks = self.features(checkpoint, data, folders)
        gallery, queries = banks[0], banks[-1]
        found = []
        for number, order in enumerate(ranking(gallery.features, queries.features, self.gallery == "others")):
            places = np.flatnonzero(gallery.labels[order] == queries.labels[number])
            if len(places):
                precision = average_precision(places)
                found.append((number, precision, int(places[0]) + 1, len(places)))
        table = io.StringIO()
        lines = csv.writer(table, lineterminator="\n")
        lines.writerow(["query", "class", "average_precision", "first_right", "right_in_gallery"])
        for number, precision, first, count in sorted(found, key=lambda row: row[1]):
            name = data.val.called(number)
            lines.writerow([name, data.val.classes[queries.labels[number]], f"{100 * precision:.2f}", first, count])
        folders.write("queries.csv", table.getvalue())
        rows, precisions, first_right = (np.array(column) for column in list(zip(*found, strict=True))[:3])
        scores = {
            "mAP": 100 * precisions,
            **{f"R@{k}": 100.0 * (first_right <= k) for k in (1, 5, 10)},
            "MRR": 100 / first_right,
        }
        outcomes = Scores(
            images=some_of(images_of(data.val), rows.tolist()),
            classes=data.val.classes,
            measures=dict.fromkeys(scores, "mean"),
            target=queries.labels[rows],
            weight=np.ones(len(rows), np.int64),
            value=scores,
        )
        folders.keep(outcomes)
        return outcomes.metrics()


def ranking(gallery: NDArray[np.float32], queries: NDArray[np.float32], is_itself: bool) -> Iterator[NDArray[np.int64]]:
    """The rows of the gallery (N, D) for each query (Q, D), most similar first; without itself if both are the same."""
    from cgh_bench.frozen.neighbours import unit_rows

    units = unit_rows(np.asarray(gallery)).T
    for start in range(0, len(queries), QUERIES_AT_A_TIME):
        similarity = unit_rows(queries[start : start + QUERIES_AT_A_TIME]) @ units
        for number, order in enumerate(np.argsort(-similarity, axis=1, kind="stable"), start=start):
            yield order[order != number] if is_itself else order


def average_precision(places: NDArray[np.int64]) -> float:
    """The mean, over the right images, of the precision at their `places`, which count from 0."""
    return float(np.mean(np.arange(1, len(places) + 1) / (places + 1)))


TASKS = {
    "retrieval": Retrieval(),
    "retrieval_among_val": Retrieval(gallery="others"),
    "animals_retrieval": Retrieval(data="animals", transform=AS_IS),
}
