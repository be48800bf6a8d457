"""Instance retrieval: the images of a gallery, ranked by cosine similarity to each query; right is the query's class.

Every rank counts, so the whole gallery is ranked. Of equally similar images the earlier comes first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data import catalog, find_folder
from cgh_bench.data.folder import VAL_FOLDERS, load_classes, load_gallery
from cgh_bench.data.image_set import DataPair, ImageSet
from cgh_bench.data.transform import AS_IS, EvalTransform
from cgh_bench.frozen.selection import require_one_label
from cgh_bench.tasks.base import FeatureTask, Folders, Metric

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data.image_set import Images

QUERIES_AT_A_TIME = 256
WORST, SHOWN = 5, 10
"""How many queries are drawn, and how many images of each ranking."""


@dataclass(frozen=True)
class Retrieval(FeatureTask):
    """Rank the train images by their similarity to each val image, or the other val images.

    mAP over queries, the share of queries with a relevant image among the first 1, 5 and 10, and the mean of 1 / the
    rank of the first relevant image. `queries.csv` in the run's folder has every query, worst first.
    """

    METRICS: ClassVar = (Metric("mAP"), Metric("R@1"), Metric("R@5"), Metric("R@10"), Metric("MRR"))

    gallery: Literal["train", "others"] = "train"
    """What is searched: the train images, or the other val images."""

    def load_data(self, cache: Path) -> DataPair:
        """The gallery as train and the queries as val; of a folder of your own also `gallery/` and `query/` of classes.

        `gallery="others"` takes a folder of classes without splits, too.
        """
        folder = None if self.data in catalog() else find_folder(self.data or " ")
        if folder and (folder / "query").is_dir() and (folder / "gallery").is_dir():
            return load_gallery(folder, cache)
        if (
            folder
            and self.gallery == "others"
            and not any((folder / name).is_dir() for name in ("train", *VAL_FOLDERS))
        ):
            whole = load_classes(folder, folder.name, cache)
            return DataPair(folder.name, whole, whole)
        return super().load_data(cache)

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
            raise UserError(f"no query of {data.val.name} has an image of its class in {where}")

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
            right = gallery.labels[order] == queries.labels[number]
            places = np.flatnonzero(right)
            if len(places):
                precision = average_precision(places)
                found.append(Found(number, precision, int(places[0]) + 1, len(places), order[:SHOWN], right[:SHOWN]))
        lines = (
            [
                *(data.val.called(one.query), data.val.classes[queries.labels[one.query]]),
                *(f"{100 * one.precision:.2f}", one.first_right, one.right),
            ]
            for one in sorted(found, key=lambda each: each.precision)
        )
        header = ["query", "class", "average_precision", "first_right", "right_in_gallery"]
        folders.table("queries.csv", header, lines)
        draw_worst(folders, data.val, self.sets(data)[0][0], found)
        rows, scores = np.array([one.query for one in found]), measures(found)
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


@dataclass(frozen=True, eq=False)
class Found:
    """How one query was answered."""

    query: int
    """Its number."""
    precision: float
    """Average precision, from 0 to 1."""
    first_right: int
    """The rank of the first right image, from 1."""
    right: int
    """Right images in the gallery."""
    first: NDArray[np.int64]
    """The numbers of the first images of the ranking."""
    hits: NDArray[np.bool_]
    """Which of them are right."""


def measures(found: Sequence[Found]) -> dict[str, NDArray[np.float64]]:
    """Every metric of each answered query, in per cent."""
    first = np.array([one.first_right for one in found])
    return {
        "mAP": 100 * np.array([one.precision for one in found]),
        **{f"R@{k}": 100.0 * (first <= k) for k in (1, 5, 10)},
        "MRR": 100 / first,
    }


def draw_worst(folders: Folders, queries: "Images", gallery: "Images", found: Sequence[Found]) -> None:
    """`pictures/worst.png`: the queries with the least precision, each before the images that it found first.

    Right ones are framed in green, others in red.
    """
    from cgh_bench.frozen import drawing

    rows = []
    for one in sorted(found, key=lambda each: each.precision)[:WORST]:
        shown = zip(one.first.tolist(), one.hits, strict=True)
        tiles = [(queries.image(one.query), drawing.NEUTRAL)]
        tiles += [(gallery.image(number), drawing.RIGHT if hit else drawing.WRONG) for number, hit in shown]
        rows.append([drawing.tile(drawing.picture_of(image), colour) for image, colour in tiles])
    folders.picture("worst", drawing.sheet(rows))


def ranking(gallery: NDArray[np.float32], queries: NDArray[np.float32], is_itself: bool) -> Iterator[NDArray[np.int64]]:
    """The rows of the gallery (N, D) for each query (Q, D), most similar first; without itself if both are the same."""
    from cgh_bench.frozen.neighbours import unit_rows

    units = unit_rows(np.asarray(gallery)).T
    for start in range(0, len(queries), QUERIES_AT_A_TIME):
        similarity = unit_rows(queries[start : start + QUERIES_AT_A_TIME]) @ units
        for number, order in enumerate(np.argsort(-similarity, axis=1, kind="stable"), start=start):
            yield order[order != number] if is_itself else order


def average_precision(places: NDArray[np.int64], right: int | None = None, trapezoid: bool = False) -> float:
    """The mean of the precision over the right images of a query.

    Args:
        places: where they are in its ranking, from 0, rising.
        right: how many there are; those that are not among `places` add nothing. Default: no others.
        trapezoid: the precision at each place is the mean of that with it and that just before it (1 at the first).
    """
    hits = np.arange(1, len(places) + 1)
    precision = hits / (places + 1)
    if trapezoid:
        before = np.divide(hits - 1, places, out=np.ones(len(places)), where=places > 0)
        precision = (precision + before) / 2
    return float(precision.sum() / (len(places) if right is None else right))


TASKS = {
    "retrieval": Retrieval(),
    "retrieval_among_val": Retrieval(gallery="others"),
    "animals_retrieval": Retrieval(data="animals", transform=AS_IS),
}
