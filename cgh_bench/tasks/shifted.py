"""Robustness to other images of the same classes: the linear probe of clean train images is only asked about them.

Nothing is learned from the other images, and no hyper-parameter is chosen on them. Classes that they cannot show are
not predicted: for a set of 200 of ImageNet's classes, the other 800 logits are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair, ImageSet
from cgh_bench.data.transform import AS_IS
from cgh_bench.tasks.base import Folders, Metric
from cgh_bench.tasks.linear import Linear

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint


@dataclass(frozen=True)
class Shifted(Linear):
    """Classify images from another distribution by a linear probe fitted to clean train images."""

    METRICS: ClassVar = (Metric("top1"), Metric("class_balanced"), Metric("top1_clean"))

    shifted: str = ""
    """The other images: a name from the catalogue or a folder, of which val is taken."""

    def others(self) -> tuple[str, ...]:
        """The images of another origin."""
        if not self.shifted:
            raise UserError("name the dataset with shifted images of the same classes: --set shifted=FOLDER")
        return (self.shifted,)

    def check(self, data: DataPair) -> None:
        """Refuse other images of classes that the probe does not know."""
        super().check(data)
        (others,) = data.others.values()
        columns_of(others, data.train.classes)

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images of the probe.

        `top1` is of the other images. `top1_clean` is of the val images of the same classes, with the same choice of
        answers: what is lost is their difference.
        """
        from cgh_bench.outcomes.classification import classification

        _, *asked = self.sets(data)
        val, shifted = self.banks(checkpoint, asked, folders)
        (others,) = data.others.values()
        columns = columns_of(others, data.train.classes)
        head = self.head(checkpoint, data, folders, seed)
        predicted = head.scores(shifted.features)[:, columns].argmax(dim=1).numpy()
        outcomes = classification(
            others, predicted, ~others.right(predicted), {m: m for m in ("top1", "class_balanced")}
        )
        folders.keep(outcomes)
        same = np.flatnonzero(np.isin(val.labels, columns))
        clean = columns[head.scores(val.features[same])[:, columns].argmax(dim=1).numpy()]
        return {**outcomes.metrics(), "top1_clean": 100 * float((clean == val.labels[same]).mean())}


def columns_of(others: ImageSet, classes: Sequence[str]) -> NDArray[np.int64]:
    """The place among `classes` of each class of `others`, by its name, or by its number where all are numbers.

    Raises:
        UserError: a class is unknown.
    """
    place = {name: index for index, name in enumerate(classes)}
    numbers = {str(index): index for index in range(len(classes))}
    known = place if set(others.classes) & set(place) else numbers
    unknown = [name for name in others.classes if name not in known]
    if unknown:
        raise UserError(
            f"{others.name} has {len(unknown)} classes that the probe's {len(classes)} lack (first: {unknown[0]!r}); "
            "use the folder names of the train images, or numbers from 0"
        )
    few = len(others.classes)
    if known is numbers and few < len(classes) and set(others.classes) == {str(index) for index in range(few)}:
        raise UserError(
            f"{others.name} has the classes 0 to {few - 1}, which may not match the probe's {len(classes)}; "
            "use the folder names of the train images"
        )
    return np.array([known[name] for name in others.classes], np.int64)


TASKS = {
    "shifted": Shifted(),
    **{
        f"{name}_shifted": Shifted("imagenet1k", shifted=name)
        for name in ("imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "imagenet_real", "objectnet")
    },
    **{f"{name}_shifted": Shifted("animals", AS_IS, shifted=name) for name in ("animals_small", "animals_background")},
}
