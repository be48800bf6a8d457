"""Semantic correspondence: for each point of an image the most similar place in another image of the same object.

Source: SPair-71k (https://arxiv.org/abs/1908.10543) and its metric, the percentage of correct keypoints (PCK): a point
counts as found if it is at most alpha times the longer side of the object's box in the target from where it should be.
The feature of a point is read off the source's map by bilinear interpolation; the map of its cosine similarities to the
target is resized, and its maximum is the answer. Published averages differ by several points, so each has its name:
over all points (`pck_point`), over pairs (`pck_image`), or over classes of the mean over their pairs (`pck_class`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data import load_related
from cgh_bench.data.pairs import Pair, PairedImages, Points
from cgh_bench.tasks.base import Folders, Metric
from cgh_bench.tasks.dense import MapTask, Upsampling

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.outcomes.base import Images
    from cgh_bench.outcomes.scores import Scores

DRAWN = 4
"""Pairs that are drawn."""
AVERAGES = {"pck_point": "weight", "pck_image": "mean", "pck_class": "class"}
"""The measure of `Scores` that each is."""


@dataclass(frozen=True)
class Correspondence(MapTask[PairedImages]):
    """Match keypoints of one image in another by patch similarity; PCK.

    `points.csv` in the run's folder has every point; `pictures/matches.png` shows some pairs.
    """

    METRICS: ClassVar = (Metric("pck_point"), Metric("pck_image"), Metric("pck_class"))

    alpha: float = 0.1
    """The threshold of the three metrics."""
    alphas: tuple[float, ...] = (0.05, 0.01)
    """Further thresholds, reported as `pck_point_0.05`, …"""
    upsampling: Upsampling = "bilinear"
    """How the map of similarities is resized to `size`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.alpha, *self.alphas) <= 0:
            raise UserError(f"alpha {self.alpha} and alphas {self.alphas} must be above 0")

    def load_data(self, cache: Path) -> PairedImages:
        """The pairs."""
        return load_related(self.data, "correspondence", cache)

    def plan(self, checkpoint: "Checkpoint", data: PairedImages, folders: Folders) -> list[str]:
        """Time and disk of the patches."""
        patches = self.plan_patches(checkpoint, data.images, folders)
        return [patches, f"{len(data.pairs):,} pairs, {sum(len(pair.source_points) for pair in data.pairs):,} points"]

    def run(self, checkpoint: "Checkpoint", data: PairedImages, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters."""
        import torch

        from cgh_bench.outcomes.base import named_images

        patches = self.patches(checkpoint, data.images, folders)
        header = ["pair", "source", "target", "class", "x", "y", "found_x", "found_y", "true_x", "true_y", "error"]
        errors, places, lines = [], [], []
        for number, pair in enumerate(data.pairs):
            maps = [
                torch.tensor(patches.of_image(image)).T.reshape(1, -1, *patches.grid)
                for image in (pair.source, pair.target)
            ]
            found = matches(maps[0], maps[1], pair, self.size, self.upsampling)
            places.append(found)
            errors.append(np.linalg.norm(found - pair.target_points, axis=1) / pair.extent)
            named = [data.images.called(image) for image in (pair.source, pair.target)]
            for row in zip(pair.source_points, found, pair.target_points, errors[-1], strict=True):
                numbers = [f"{value:.3f}" for part in row for value in np.atleast_1d(part)]
                lines.append([number, *named, data.classes[pair.label], *numbers])
        folders.table("points.csv", header, lines)
        self._draw(data, places, errors, folders)
        called = data.images.called
        names = [f"{called(pair.source)} to {called(pair.target)}" for pair in data.pairs]
        alphas = {"": self.alpha, **{f"_{alpha:g}": alpha for alpha in self.alphas}}
        pairs = named_images(data.name, names, data.fingerprint)
        outcomes = scored(pairs, data.classes, [pair.label for pair in data.pairs], errors, alphas)
        folders.keep(outcomes)
        return outcomes.metrics()

    def _draw(
        self, data: PairedImages, places: Sequence[Points], errors: Sequence[NDArray[np.float64]], folders: Folders
    ) -> None:
        """`pictures/matches.png`: some pairs, with a line for each point: green where it is found, else red."""
        from cgh_bench.frozen import drawing

        shown = []
        for number in np.unique(np.linspace(0, len(data.pairs) - 1, DRAWN).round().astype(int)).tolist():
            pair = data.pairs[number]
            sides = [drawing.picture_of(data.images.image(image)) for image in (pair.source, pair.target)]
            ends = pair.source_points, places[number]
            shown.append(drawing.matches((sides[0], sides[1]), ends, errors[number] <= self.alpha))
        folders.picture("matches", drawing.stacked(shown))


def scored(
    pairs: "Images",
    classes: Sequence[str],
    labels: Sequence[int],
    errors: Sequence[NDArray[np.float64]],
    alphas: Mapping[str, float],
) -> "Scores":
    """The share of each pair's points that is found, in per cent, and its three averages.

    Args:
        pairs: N of them.
        classes: their names.
        labels: the class of each pair.
        errors: of each pair, those of its points, as shares of the object's extent.
        alphas: the thresholds, by what follows the metrics' names.
    """
    from cgh_bench.outcomes.scores import Scores

    measures, shares = {}, {}
    for suffix, alpha in alphas.items():
        found = 100 * np.array([(error <= alpha).mean() for error in errors])
        for name, by in AVERAGES.items():
            measures[name + suffix], shares[name + suffix] = by, found
    return Scores(
        images=pairs,
        classes=tuple(classes),
        measures=measures,
        target=np.array(labels),
        weight=np.array([len(error) for error in errors]),
        value=shares,
    )


def matches(source: "Tensor", target: "Tensor", pair: Pair, size: int, upsampling: Upsampling) -> Points:
    """Where in the target, in its own pixels, the source's points are: (n, 2).

    Args:
        source: its map (1, D, h, w).
        target: its map.
        pair: the points, in the pixels of the source, and the sizes of both images.
        size: pixels a side that both were squashed to, and that similarities are resized to.
        upsampling: how.
    """
    import torch

    from cgh_bench.frozen.map_losses import resize

    (width, height), shape = pair.sizes[0], torch.nn.functional
    places = torch.tensor((pair.source_points + 0.5) / (width, height) * 2 - 1, dtype=source.dtype)
    vectors = shape.grid_sample(source, places[None, None], padding_mode="border", align_corners=False)[0, :, 0]
    similarity = torch.einsum("dn,dhw->nhw", shape.normalize(vectors, dim=0), shape.normalize(target[0], dim=0))
    best = resize(similarity[None], (size, size), upsampling)[0].flatten(1).argmax(dim=1).numpy()
    squashed = np.stack([best % size, best // size], axis=1)
    return (squashed + 0.5) / size * pair.sizes[1] - 0.5


TASKS = {
    "animals_correspondence": Correspondence("animal_pairs", size=256),
    # sd-dino takes 840 pixels, probe3d 800 and up to 200 pairs of each class; here all pairs. 840 suits patches of 14.
    "spair_correspondence": Correspondence("spair71k", size=800),
}
