"""Surface normals from a frozen backbone: BatchNorm and a linear layer at every patch.

Loss, optimiser and metrics of mbanani/probe3d@a1f1464 (train_snorm.py), whose published numbers are of a larger head,
DPT on four layers: they are not comparable. Metrics are the mean over images, each over the pixels whose normal is
known.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.core.descent import HeadTraining
from cgh_bench.data.measured import Values
from cgh_bench.tasks.base import Metric
from cgh_bench.tasks.measured import MeasuredTask

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.frozen.patches import Grid

ANGLES = {"within_11": 11.25, "within_22": 22.5, "within_30": 30.0}
"""Degrees (Fouhey et al. 2013)."""


@dataclass(frozen=True)
class Normals(MeasuredTask):
    """Predict the surface normal of every pixel by a linear layer on each patch of the frozen backbone.

    Metrics: root mean squared angle in degrees, and the share of pixels within 11.25, 22.5 and 30 degrees. Writes
    `normals/NUMBER.png`.
    """

    METRICS: ClassVar = (
        Metric("rmse", "°", higher_is_better=False),
        Metric("within_11"),
        Metric("within_22"),
        Metric("within_30"),
    )
    QUANTITY: ClassVar = "normals"
    CHANNELS: ClassVar = 4

    def loss(self, outputs: "Tensor", truth: "Tensor", grid: "Grid", step: int) -> "Tensor":
        """The angle, weighted by a predicted certainty."""
        from cgh_bench.frozen.map_losses import angular_loss, as_maps, resize

        resized = resize(as_maps(outputs, grid), truth.shape[1:3], self.upsampling)
        return angular_loss(resized, truth.movedim(3, 1), truth.any(dim=3))

    def decoded(self, outputs: "Tensor", grid: "Grid", size: tuple[int, int]) -> "Tensor":
        """Unit vectors."""
        import torch

        from cgh_bench.frozen.map_losses import as_maps, resize

        resized = resize(as_maps(outputs, grid)[:, :3], size, self.upsampling)
        return torch.nn.functional.normalize(resized, dim=1).movedim(1, 3)

    def errors(self, predicted: Values, truth: Values) -> dict[str, float]:
        """See `MeasuredTask`."""
        known = truth.any(axis=2)
        if not known.any():
            return dict.fromkeys(("rmse", *ANGLES), float("nan"))
        cosine = (predicted[known].astype(np.float64) * truth[known]).sum(axis=1)
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        within = {name: 100 * float(np.mean(angle < limit)) for name, limit in ANGLES.items()}
        return {"rmse": float(np.sqrt(np.mean(angle**2))), **within}

    def drawn(self, truth: Values, predicted: Values) -> list[Image.Image]:
        """Right, down and away as red, green and blue."""
        return [Image.fromarray(self.picture(values)) for values in (truth, predicted)]

    def picture(self, predicted: Values) -> NDArray[np.uint8]:
        """127.5 + 127.5 times the vector."""
        return np.clip(np.rint(127.5 + 127.5 * predicted), 0, 255).astype(np.uint8)


# probe3d: AdamW (torch's decay), 10 epochs of 8 images with 1.5 of warm-up; an epoch is counted as 1,000 steps here.
PROBE3D = HeadTraining(rate=5e-4, iterations=10_000, batch_size=8, decay=0.01, warmup=1_500, first=0.0)

TASKS = {
    "normals": Normals(size=480, training=PROBE3D),
    "animals_normals": Normals("animal_scenes", size=256),
}
