"""Quality of frozen features without labels: RankMe, LiDAR, α-ReQ, alignment and uniformity.

All depend on how many images there are and how wide the feature is: compare checkpoints of equal width under one
protocol only. `rankme_gaussian` is what pure noise of the same size gives. None of them replaces a labelled task:
`cgh-bench results correlate` says how well each ranks the checkpoints that you have evaluated.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair, ImageSet, subset
from cgh_bench.data.transform import AS_IS, IMAGENET_CROP, IMAGENET_LINEAR, Crop, EvalTransform
from cgh_bench.tasks.base import FeatureTask, Folders, Metric

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelFree(FeatureTask):
    """Measure the quality of train features without labels: their spectrum, and random crops of some images."""

    METRICS: ClassVar = (
        Metric("rankme", ""),
        Metric("rankme_gaussian", "", higher_is_better=None),
        Metric("lidar", "", always=False),
        Metric("alpha", "", higher_is_better=None, always=False),
        Metric("alignment", "", higher_is_better=False),
        Metric("uniformity", "", higher_is_better=False),
    )

    transform: EvalTransform = IMAGENET_LINEAR
    images: int = 25_600
    """The most train images that are used, drawn with seed 0 (RankMe, section 4)."""
    viewed: int = 1_000
    """The most of these that are seen in crops (LiDAR, section 5)."""
    views: int = 10
    crop: Crop = IMAGENET_CROP
    eps: float = 1e-7
    """Added to each share in the entropies."""
    delta: float = 1e-4
    """Added to the diagonal of LiDAR's covariance within images."""
    ranks: tuple[int, int] = (4, 100)
    """Ranks of the eigenvalues that α-ReQ's line is fitted to, as its authors' training script."""

    def __post_init__(self) -> None:
        if min(self.images, self.viewed, self.views) < 2 or min(self.eps, self.delta) <= 0:
            raise UserError(
                f"images {self.images}, viewed {self.viewed} and views {self.views} must be at least 2, "
                f"eps {self.eps:g} and delta {self.delta:g} above 0"
            )
        if not 1 <= self.ranks[0] < self.ranks[1]:
            raise UserError(f"ranks {self.ranks} must be two increasing numbers, at least 1")

    def check(self, data: DataPair) -> None:
        """Refuse fewer than two images; labels do not matter."""
        if len(data.train) < 2:
            raise UserError(f"{data.train.name} has one image; at least two are needed")

    def sets(self, data: DataPair) -> Sequence[tuple[ImageSet, EvalTransform]]:
        """The images as they are, and crops of some of them."""
        from cgh_bench.frozen.crops import with_crops

        order = np.random.default_rng(0).permutation(len(data.train))
        some = subset(data.train, np.sort(order[: self.images]), f"{min(self.images, len(order)):,} drawn")
        few = subset(data.train, np.sort(order[: self.viewed]), f"{min(self.viewed, len(order)):,} drawn")
        return (some, self.transform), (with_crops(few, self.transform, self.crop, self.views), AS_IS)

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters. `spectrum.npz` has the singular values and the variances."""
        from cgh_bench.frozen import label_free

        whole, cropped = (bank.features for bank in self.features(checkpoint, data, folders))
        width = whole.shape[1]
        crops = cropped.reshape(1 + self.views, -1, width)[1:].transpose(1, 0, 2)
        singular, variances = label_free.singular_values(whole), label_free.variances(whole)
        folders.save("spectrum.npz", singular_values=singular, variances=variances)
        alpha = label_free.power_law(variances, self.ranks)
        lidar = label_free.lidar(crops, self.delta, self.eps)
        if lidar is None:
            log.warning(
                f"lidar is left out: {len(crops):,} images in {self.views} crops do not determine the covariance of "
                f"{width:,} numbers; set viewed or views higher, until viewed · (views - 1) is {width:,}"
            )
        return {
            "rankme": label_free.rankme(singular, self.eps),
            "rankme_gaussian": label_free.rankme_of_gaussian(len(whole), width, self.eps),
            **({} if lidar is None else {"lidar": lidar}),
            **({} if alpha is None else {"alpha": alpha}),
            "alignment": label_free.alignment(crops),
            "uniformity": label_free.uniformity(whole),
        }


TASKS = {
    "label_free": LabelFree(),
    "label_free_quick": LabelFree(images=2_000, viewed=200, views=4),
    "imagenet_label_free": LabelFree("imagenet1k"),
    "animals_label_free": LabelFree("animals", AS_IS, viewed=500, views=4, crop=Crop(48, (0.3, 1.0))),
}
