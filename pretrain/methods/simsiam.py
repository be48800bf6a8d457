"""SimSiam: two views, one predictor, no gradient through the other side; neither negatives nor a momentum encoder.

Source: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021 (arXiv 2011.10566); the values are
those of its code, facebookresearch/simsiam@a7bc177. Departures: its backbone starts with the last norm of each block at
zero, here all methods start from the same weights, torchvision's; its learning rate falls once per epoch, here at every
step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.pretrain.methods import cgh
from cgh_bench.pretrain.ranges import Count
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Views

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class SimSiam(Method):
    """Each view's prediction points where the other view's projection does; defaults as published for ImageNet."""

    dim: Count = 2048
    predictor_hidden: Count = 512
    constant_predictor_rate: bool = True
    """Whether the predictor's learning rate stays at its peak (`--fix-pred-lr`, as for the published model)."""

    @property
    def constant_rate(self) -> tuple[str, ...]:
        """The predictor, if it is so set."""
        return ("predictor.",) if self.constant_predictor_rate else ()

    def add_networks(self, architecture: Architecture) -> None:
        """Backbone with projector (the student), and predictor."""
        from torch import nn

        from cgh_bench.pretrain.parts import Encoder

        backbone = architecture.build()
        width, hidden = backbone.dim, self.predictor_hidden
        projector = nn.Sequential(
            *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)),
            *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)),
            *(nn.Linear(width, self.dim, bias=False), nn.BatchNorm1d(self.dim, affine=False)),
        )
        self.student = Encoder(backbone, projector)
        self.predictor = nn.Sequential(
            *(nn.Linear(self.dim, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)),
            nn.Linear(hidden, self.dim),
        )

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Negative cosine of one batch, the mean of both directions; -1 at best. See `Method.forward`."""
        from torch.nn import functional as F

        projected = [self.student(view) for view in views]
        predicted = [self.predictor(z) for z in projected]
        cosines = [
            F.cosine_similarity(p.float(), z.detach().float()).mean()
            for p, z in zip(predicted, reversed(projected), strict=True)
        ]
        return {"cosine": -(cosines[0] + cosines[1]) / 2}


RECIPES = {
    "simsiam_r50_in1k_100ep": Recipe(
        method=SimSiam(),
        architecture=ResNet("resnet50"),
        views=Views((cgh.IMAGENET_STRONG, cgh.IMAGENET_STRONG)),
        data="imagenet1k",
        epochs=100,
        batch_size=512,
        base_lr=0.05,
        warmup_epochs=0,
        decay="all",
        sync_bn=True,
    ),
    # Nothing is published at this size; all but method and views is that of cgh_r18_animals.
    "simsiam_r18_animals": replace(
        cgh.RECIPES["cgh_r18_animals"],
        method=SimSiam(dim=512, predictor_hidden=128),
        views=Views((cgh.ANIMALS_STRONG, cgh.ANIMALS_STRONG)),
    ),
}
