"""Attentive probe: a learned query pools the patch tokens of the frozen backbone, and a linear layer classifies."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from cgh_bench.core.descent import Cosine, Schedule
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair, ImageSet
from cgh_bench.data.transform import AS_IS, BICUBIC_CROP, IMAGENET_KNN, Crop, EvalTransform
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.crop_probe import CropProbe

if TYPE_CHECKING:
    import torch

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.attentive import AttentiveProbe

RATES = tuple(4 * rate for rate in (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2))
"""Times 1024 / 256 (8 GPUs of 128)."""
RISING = Cosine(warmup=1)


@dataclass(frozen=True)
class Attentive(CropProbe):
    """Classify each val image by an attentive pooling of its patch tokens, trained with AdamW on random crops."""

    transform: EvalTransform = IMAGENET_KNN
    crop: Crop = BICUBIC_CROP
    feature: str = "layer4"
    """The stage whose map is read; of a transformer, `layer4` is the patch tokens after the final norm."""
    learning_rates: tuple[float, ...] = RATES
    weight_decays: tuple[float, ...] = (5e-4, 1e-3, 5e-2)
    """For all but biases."""
    schedule: Schedule = RISING
    epochs: int = 10
    batch_size: int = 1024
    held_out: float = 0.1
    initial: float = 0.02
    head_width: int = 64
    """Channels of an attention head."""

    @property
    def grid(self) -> list[tuple[str, float, float]]:
        """Feature, learning rate and weight decay of every head."""
        return list(product((self.feature,), self.learning_rates, self.weight_decays))

    def _width(self, checkpoint: "Checkpoint") -> int:
        """D of a token."""
        from cgh_bench.frozen.patches import map_width

        width = map_width(checkpoint, self.feature)
        if self.head_width < 1 or width % self.head_width:
            fitting = next(other for other in (32, 16, 8, 4, 2, 1) if width % other == 0)
            raise UserError(
                f"the tokens of {checkpoint.architecture.name} are {width} wide, which heads of {self.head_width} "
                f"cannot share; set head_width={fitting} or another divisor"
            )
        return width

    def plan(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders) -> list[str]:
        """What the heads take, and how long their training, by the backbone's speed on a few images."""
        width = self._width(checkpoint)
        numbers = len(self.grid) * width * (2 * width + len(data.train.classes))
        judged = len(data.val) + int(self.held_out * len(data.train))
        return [
            f"{len(self.grid)} heads, {4 * 4 * numbers / 1e6:,.0f} MB of memory with moments and gradient",
            self.planned(checkpoint, data.train, (self.feature,), judged),
        ]

    def probe(
        self,
        checkpoint: "Checkpoint",
        judged: Mapping[str, ImageSet],
        folders: Folders,
        seed: int,
        device: "torch.device",
    ) -> "AttentiveProbe":
        """See `CropProbe`."""
        from cgh_bench.frozen.attentive import AttentiveHead, AttentiveProbe
        from cgh_bench.frozen.judge import Judge
        from cgh_bench.frozen.patches import LiveMaps

        classes = len(judged["val"].classes)
        first = AttentiveHead(self._width(checkpoint), classes, self.head_width, self.initial, seed)
        judges = {name: Judge(images, self.transform, self.batch_size) for name, images in judged.items()}
        grid = [(rate, decay) for _, rate, decay in self.grid]
        return AttentiveProbe(LiveMaps(checkpoint, self.feature, self.precision), first, grid, judges)


# facebookresearch/capi@98b4fa1 eval_classification.py; rate and decay chosen on a tenth of train, as there.
CAPI = Attentive("imagenet1k", steps=1250)

TASKS = {
    "imagenet_attentive_capi": CAPI,
    # Epochs are passes over the images, of fewer images a step and rates scaled by them.
    "attentive": replace(CAPI, data="", steps=0, batch_size=256, learning_rates=tuple(rate / 4 for rate in RATES)),
    "animals_attentive": Attentive(
        "animals",
        AS_IS,
        crop=Crop(48, (0.3, 1.0)),
        learning_rates=(1e-4, 1e-3, 1e-2),
        weight_decays=(5e-2,),
        batch_size=256,
        head_width=32,
    ),
}
