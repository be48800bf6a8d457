"""BYOL: predict a momentum encoder's projection of another view; no negatives.

Source: Grill et al., Bootstrap Your Own Latent, NeurIPS 2020 (arXiv 2006.07733); the values are those of its code,
google-deepmind/deepmind-research, byol/configs/byol.py, for 300 epochs. Departures, in the colours: its brightness is
added, its contrast is about each channel's mean, its saturation scales that of HSV; its crops are not antialiased.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.pretrain.methods import cgh
from cgh_bench.pretrain.ranges import Count, Fraction
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Augment, Views

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(eq=False)
class Byol(Method):
    """Each view's prediction points where the target's projection of the other does; defaults as published."""

    dim: Count = 256
    hidden: Count = 4096
    """Width inside projector and predictor."""
    momentum: Fraction = 0.99
    """The momentum of the target network at first; it rises to 1 over the run, by half a cosine."""

    def add_networks(self, architecture: Architecture) -> None:
        """Online network (the student), predictor, and a target network that starts from other random weights."""
        from cgh_bench.pretrain.parts import Encoder, MomentumEncoder

        def encoder() -> Encoder:
            backbone = architecture.build()
            return Encoder(backbone, _mlp(backbone.dim, self.hidden, self.dim))

        self.student = encoder()
        self.predictor = _mlp(self.dim, self.hidden, self.dim)
        self.target = MomentumEncoder(encoder())

    def begin_step(self, step: int, steps: int) -> None:
        """The target network follows the online one as the last step left it, ever more slowly."""
        from cgh_bench.pretrain.parts import rising

        if step:
            self.target.follow(self.student, rising(self.momentum, step - 1, steps))

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Squared distance of unit vectors of one batch, the sum of both directions (eq. 2); see `Method.forward`."""
        from torch.nn import functional as F

        predicted = [self.predictor(self.student(view)) for view in views]
        targets = [self.target(view) for view in views]
        cosines = [
            F.cosine_similarity(p.float(), t.float()).mean() for p, t in zip(predicted, reversed(targets), strict=True)
        ]
        return {"distance": 4 - 2 * (cosines[0] + cosines[1])}


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    from torch import nn

    return nn.Sequential(
        *(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)),
        nn.Linear(hidden, outputs, bias=False),
    )


# The paper's table 6: the two views differ in blur and solarisation.
FIRST = Augment(
    size=224,
    crop_area=(0.08, 1.0),
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grey=0.2,
    blur=1.0,
    interpolation="bicubic",
)
SECOND = replace(FIRST, blur=0.1, solarize=0.2)

RECIPES = {
    "byol_r50_in1k_300ep": Recipe(
        method=Byol(),
        architecture=ResNet("resnet50"),
        views=Views((FIRST, SECOND)),
        data="imagenet1k",
        epochs=300,
        batch_size=4096,
        base_lr=0.3,
        warmup_epochs=10,
        optimizer="lars",
        weight_decay=1e-6,
        sync_bn=True,
    ),
    # Nothing is published at this size; all but method and views is that of cgh_r18_animals.
    "byol_r18_animals": replace(
        cgh.RECIPES["cgh_r18_animals"],
        method=Byol(dim=128, hidden=512, momentum=0.99),
        views=Views((cgh.ANIMALS_STRONG, cgh.ANIMALS_STRONG)),
    ),
}
