"""DINO: agree with a momentum encoder on soft classes without labels; small crops learn from large ones.

Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021 (arXiv 2104.14294); the
values are those of facebookresearch/dino: `main_dino.py` and, for ResNet-50, the command in its README. Departures: its
learning rate reaches its peak one step before the end of the warm-up, and ends at 1e-6, here at 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.backbones.vit import ViT
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.methods import byol, cgh
from cgh_bench.pretrain.ranges import Count, Fraction, NotNegative, Positive
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Views

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(eq=False)
class Dino(Method):
    """Every view of the student chooses the classes that the teacher chooses for another, large view."""

    classes: Count = 65_536
    hidden: Count = 2048
    bottleneck: Count = 256
    """Width of the unit embedding before the classes."""
    momentum: Fraction = 0.996
    """The momentum of the teacher at first; it rises to 1 over the run, by half a cosine."""
    student_temperature: Positive = 0.1
    teacher_temperature: Positive = 0.04
    centre_momentum: Fraction = 0.9
    frozen_epochs: NotNegative = 1.0
    """The number of first epochs in which the layer of classes stays as initialised."""

    def check(self, recipe: Recipe) -> None:
        """At least two large views; the first two are the teacher's too."""
        views = len(recipe.views.augments)
        if views < 2:
            raise UserError(f"DINO needs at least 2 views, the first two for the teacher; the recipe has {views}")

    def add_networks(self, architecture: Architecture) -> None:
        """Student, teacher and centre."""
        import torch

        from cgh_bench.pretrain.parts import Encoder, MomentumEncoder, PrototypeHead

        backbone = architecture.build()
        self.student = Encoder(backbone, PrototypeHead(backbone.dim, self.hidden, self.bottleneck, self.classes))
        self.teacher = MomentumEncoder(self.student)
        self.register_buffer("centre", torch.zeros(self.classes))

    def begin_step(self, step: int, steps: int) -> None:
        """The teacher follows the student as the last step left it, ever more slowly."""
        from cgh_bench.pretrain.parts import rising

        if step:
            self.teacher.follow(self.student, rising(self.momentum, step - 1, steps))

    def frozen(self, epoch: float) -> list[nn.Parameter]:
        """The layer of classes, at first."""
        return [self.student.get_parameter("head.directions")] if epoch < self.frozen_epochs else []

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Cross entropy of one batch, the mean over pairs of different views (eq. 3); see `Method.forward`."""
        import torch
        from torch.nn import functional as F

        from cgh_bench.core import dist
        from cgh_bench.pretrain.parts import encode_by_size

        centre = self.get_buffer("centre")
        chosen = encode_by_size(self.teacher, views[:2])
        targets = [((logits - centre) / self.teacher_temperature).softmax(dim=1) for logits in chosen]
        guesses = [logits / self.student_temperature for logits in encode_by_size(self.student, views)]
        losses = [
            F.cross_entropy(guess, target)
            for t, target in enumerate(targets)
            for g, guess in enumerate(guesses)
            if g != t
        ]
        centre.lerp_(dist.mean(torch.cat(chosen).mean(dim=0)), 1 - self.centre_momentum)
        return {"cross_entropy": torch.stack(losses).mean()}


LARGE = tuple(replace(view, crop_area=(0.14, 1.0)) for view in (byol.FIRST, byol.SECOND))
SMALL = replace(byol.FIRST, size=96, crop_area=(0.05, 0.14), blur=0.5)
ANIMALS_SMALL = replace(cgh.ANIMALS_STRONG, size=32, crop_area=(0.2, 0.5))

RECIPES = {
    "dino_r50_in1k_100ep": Recipe(
        method=Dino(),
        architecture=ResNet("resnet50"),
        views=Views((*LARGE, *[SMALL] * 8)),
        data="imagenet1k",
        epochs=100,
        batch_size=512,
        base_lr=0.03,
        warmup_epochs=10,
        weight_decay=1e-4,
        clip_gradient=3.0,
        sync_bn=True,
    ),
    # Nothing is published at this size; all but method and views is that of cgh_r18_animals.
    "dino_r18_animals": replace(
        cgh.RECIPES["cgh_r18_animals"],
        method=Dino(classes=1024, hidden=512, bottleneck=128, momentum=0.99),
        views=Views((cgh.ANIMALS_STRONG, cgh.ANIMALS_STRONG, ANIMALS_SMALL, ANIMALS_SMALL)),
        clip_gradient=3.0,
    ),
}
# As cgh_vit_tiny_animals; small crops are of 2 × 2 patches, and the classes learn from the start of so short a run.
RECIPES["dino_vit_tiny_animals"] = replace(
    RECIPES["dino_r18_animals"],
    method=Dino(classes=1024, hidden=512, bottleneck=128, momentum=0.99, frozen_epochs=0.0),
    architecture=ViT("vit_tiny_patch12_48"),
    views=Views((cgh.ANIMALS_STRONG, cgh.ANIMALS_STRONG, *[replace(ANIMALS_SMALL, size=24)] * 2)),
    epochs=4,
    base_lr=0.001,
)
