"""Retrieval of instances by the rules of published benchmarks: right images of each query, junk, and whose precision.

Junk images of a query are left out of its ranking. Two precisions are published: the mean of the precision at each
right image (`points`), and the area below its broken line (`trapezoid`: filipradenovic/revisitop@be39832
`python/evaluate.py`, and Copydays). Features: facebookresearch/dino@7c446df `eval_image_retrieval.py` resizes the long
side (never up) and takes whole queries; the benchmark's own example cuts queries to their boxes (`cut_queries`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data import load_related
from cgh_bench.data.image_set import Images
from cgh_bench.data.instances import Cut, Searched, Truth
from cgh_bench.data.transform import IMAGENET_KNN, EvalTransform
from cgh_bench.tasks.base import Folders, FrozenTask, Metric
from cgh_bench.tasks.retrieval import QUERIES_AT_A_TIME, SHOWN, Found, average_precision, draw_worst, measures, ranking

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.whole_images import Whole
    from cgh_bench.outcomes.scores import Scores


@dataclass(frozen=True)
class Instances(FrozenTask[Searched]):
    """Rank a gallery by its similarity to each query, under the benchmark's own rules.

    mAP, R@1, R@5, R@10 and MRR over queries. `queries.csv` in the run's folder has every query, worst first.
    """

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("mAP"), Metric("R@1"), Metric("R@5"), Metric("R@10"), Metric("MRR"),
    )  # fmt: skip

    data: str
    transform: EvalTransform = IMAGENET_KNN
    scales: tuple[float, ...] = (1.0,)
    """Shares of the transformed image's size over which features are averaged."""
    with_patches: bool = False
    """Append the generalised mean (power 4) of the last map to the global feature."""
    ap: Literal["points", "trapezoid"] = "points"
    depth: int | None = None
    """How many ranks count; right images behind them are not found. None: all."""
    cut_queries: bool = False
    """Cut queries to the boxes that the benchmark gives."""

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0 or (self.depth is not None and self.depth < 1):
            raise UserError(f"scales {self.scales} must be above 0, depth {self.depth} at least 1 or none")

    def load_data(self, cache: Path) -> Searched:
        """The queries and the gallery."""
        return load_related(self.data, "retrieval", cache)

    def check(self, data: Searched) -> None:
        """Refuse queries without anything to find, and boxes that there are not."""
        for suffix, truth in data.truths.items():
            if not any(map(len, truth.right)):
                raise UserError(f"no query of {data.name}{suffix} has a relevant image in the gallery")
        if self.cut_queries and data.boxes is None:
            raise UserError(f"{data.name} has no query boxes; leave out cut_queries")

    def plan(self, checkpoint: "Checkpoint", data: Searched, folders: Folders) -> list[str]:
        """Time and disk of the features, memory of the ranking."""
        whole, size = self._whole(checkpoint, folders), len(data.gallery)
        width = whole.work(data.gallery).widths(checkpoint.architecture.skeleton)[0]
        megabytes = (4 * size * width + 20 * QUERIES_AT_A_TIME * size) / 1e6
        ranks = f"ranking: {size:,} images for each of {len(data.queries):,} queries, at most {megabytes:,.0f} MB"
        return [*(whole.plan(images) for images in self._sets(data)), f"{ranks} of memory"]

    def run(self, checkpoint: "Checkpoint", data: Searched, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters. Queries without a right image under a rule do not count there."""
        whole, (gallery, queries) = self._whole(checkpoint, folders), self._sets(data)
        first = whole.extract(gallery)
        asked = first if queries is gallery else whole.extract(queries)
        found: dict[str, list[Found]] = {suffix: [] for suffix in data.truths}
        for number, order in enumerate(ranking(first, asked, False)):
            for suffix, truth in data.truths.items():
                if len(truth.right[number]):
                    found[suffix].append(answered(number, order, truth, self.depth, self.ap == "trapezoid"))
        self._write(data, queries, found, folders)
        draw_worst(folders, queries, gallery, next(iter(found.values())))
        outcomes = _scores(data, queries, found)
        folders.keep(outcomes)
        return outcomes.metrics()

    def _whole(self, checkpoint: "Checkpoint", folders: Folders) -> "Whole":
        from cgh_bench.frozen.whole_images import Whole

        return Whole(checkpoint, self.transform, self.scales, self.with_patches, folders.features, self.precision)

    def _sets(self, data: Searched) -> tuple[Images, Images]:
        if self.cut_queries and data.boxes is not None:
            return data.gallery, Cut(data.queries, data.boxes)
        return data.gallery, data.gallery if data.queries.paths == data.gallery.paths else data.queries

    def _write(self, data: Searched, queries: Images, found: dict[str, list[Found]], folders: Folders) -> None:
        lines = (
            [suffix.strip("_"), queries.called(one.query), f"{100 * one.precision:.2f}", one.first_right, one.right]
            for suffix, rows in found.items()
            for one in sorted(rows, key=lambda row: row.precision)
        )
        header = ["rule", "query", "average_precision", "first_right", "right_in_gallery"]
        folders.table("queries.csv", header, lines)


@dataclass(frozen=True)
class Revisited(Instances):
    """Instance retrieval under the revisited Oxford and Paris protocols: `_M` medium, `_H` hard, `_E` easy."""

    METRICS: ClassVar[tuple[Metric, ...]] = tuple(
        Metric(f"{name}_{rule}") for rule in "MHE" for name in ("mAP", "R@1", "R@5", "R@10", "MRR")
    )


def answered(number: int, order: NDArray[np.int64], truth: Truth, depth: int | None, trapezoid: bool) -> Found:
    """How query `number` is answered by the gallery in this `order` (N,); of the ranking `depth` images count."""
    right, marks = truth.right[number], np.zeros(len(order), np.int8)
    marks[right] = 1
    marks[truth.junk[number]] = -1
    ranked = order[marks[order] >= 0]
    hits = marks[ranked] == 1
    places = np.flatnonzero(hits)
    precision = average_precision(places if depth is None else places[places < depth], len(right), trapezoid)
    return Found(number, precision, int(places[0]) + 1, len(right), ranked[:SHOWN], hits[:SHOWN])


def _scores(data: Searched, queries: Images, found: dict[str, list[Found]]) -> "Scores":
    """What every query got; NaN under a rule by which it has nothing to find."""
    from cgh_bench.outcomes.base import named_images
    from cgh_bench.outcomes.scores import scores_of

    values: dict[str, NDArray[np.float64]] = {}
    for suffix, rows in found.items():
        for name, each in measures(rows).items():
            values[name + suffix] = np.full(len(queries), np.nan)
            values[name + suffix][[one.query for one in rows]] = each
    names = list(map(queries.called, range(len(queries))))
    return scores_of(named_images(data.queries.name, names, data.fingerprint), "query", values)


_COPIES = EvalTransform(320, None, "bicubic", squash=True)
_THREE_SCALES = (1.0, 2**-0.5, 0.5)

TASKS = {
    # The sizes and scales of DINO's two commands, which are unequal on purpose.
    "roxford_retrieval": Revisited("roxford5k", EvalTransform(224, None, longest=True), ap="trapezoid"),
    "rparis_retrieval": Revisited("rparis6k", EvalTransform(512, None, longest=True), _THREE_SCALES, ap="trapezoid"),
    "met_retrieval": Instances("met"),
    # seyrankhademi/AmsterTime README: precision among the first 128 by cosine, of images cut as for ImageNet.
    "amstertime_retrieval": Instances("amstertime", depth=128),
    # facebookresearch/dino eval_copy_detection.py, whose 20 first count; without its whitening on other images.
    "copydays_retrieval": Instances("copydays", _COPIES, with_patches=True, ap="trapezoid", depth=20),
}
