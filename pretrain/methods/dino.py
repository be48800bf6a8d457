"""DINO: agree with a slow copy of the network on soft classes that nobody gave; small crops learn from large ones.

Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021 (arXiv 2104.14294); the
numbers are those of facebookresearch/dino: `main_dino.py` and, for ResNet-50, the command in its README. Its learning
rate ends at 1e-6, here at 0.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cgh_bench.backbones import Architecture, Backbone
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core import dist
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.methods import byol, cgh
from cgh_bench.pretrain.parts import MomentumTwin
from cgh_bench.pretrain.recipe import Method, Recipe, at_least
from cgh_bench.pretrain.schedule import rising
from cgh_bench.pretrain.views import Views


@dataclass(frozen=True)
class Dino:
    """Everything DINO can be told; the defaults are the published ones."""

    classes: int = 65_536
    hidden: int = 2048
    bottleneck: int = 256
    """Width of the unit embedding before the classes."""
    momentum: float = 0.996
    """Of the teacher at first; it rises to 1 over the run, by half a cosine."""
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9
    frozen_epochs: float = 1.0
    """For so long the layer of classes stays as it was drawn."""

    def __post_init__(self) -> None:
        if min(self.student_temperature, self.teacher_temperature) <= 0:
            raise UserError("temperatures must be above 0")
        at_least(1, classes=self.classes, hidden=self.hidden, bottleneck=self.bottleneck)

    def check(self, batch_size: int, views: int) -> None:
        """Two large views or more; the first two are the teacher's too."""
        if views < 2:
            raise UserError(f"DINO takes 2 views or more, the first two for the teacher; the recipe has {views}")

    def build(self, architecture: Architecture) -> "DinoMethod":
        """Student, teacher and centre."""
        return DinoMethod(self, architecture)


class Student(nn.Module):
    """Trunk, head and classes; the teacher is a copy of it."""

    def __init__(self, config: Dino, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = architecture.build()
        self.head = nn.Sequential(
            *(nn.Linear(self.backbone.dim, config.hidden), nn.GELU()),
            *(nn.Linear(config.hidden, config.hidden), nn.GELU()),
            nn.Linear(config.hidden, config.bottleneck),
        )
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.directions = nn.Parameter(torch.empty(config.classes, config.bottleneck))
        nn.init.kaiming_uniform_(self.directions, a=5**0.5)

    def forward(self, images: Tensor, frozen: bool = False) -> Tensor:
        """Cosines (B, C) with the classes of images (B, 3, H, W); `frozen` gives the classes a gradient of zero."""
        directions = self.directions.detach() + 0 * self.directions if frozen else self.directions
        embedding = F.normalize(self.head(self.backbone(images)).float(), dim=1)
        return F.linear(embedding, F.normalize(directions.float(), dim=1)).float()


class DinoMethod(Method):
    """Every view of the student must choose the classes that the teacher chooses of another, large view."""

    centre: Tensor

    def __init__(self, config: Dino, architecture: Architecture) -> None:
        super().__init__()
        self.config = config
        self.student = Student(config, architecture)
        self.teacher = MomentumTwin(self.student, config.momentum)
        self.register_buffer("centre", torch.zeros(config.classes))

    @property
    def backbone(self) -> Backbone:
        """The student's trunk."""
        return self.student.backbone

    def begin_step(self, done: float) -> None:
        """The teacher follows the student, ever more slowly."""
        self.teacher.momentum = rising(self.config.momentum, done)
        self.teacher.follow(self.student)

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Cross entropy of one batch, the mean over pairs of different views (eq. 3); see `Method.forward`."""
        config = self.config
        chosen = [self.teacher(view) for view in views[:2]]
        targets = [((logits - self.centre) / config.teacher_temperature).softmax(dim=1) for logits in chosen]
        guesses = [self.student(view, epoch < config.frozen_epochs) / config.student_temperature for view in views]
        losses = [
            F.cross_entropy(guess, target)
            for t, target in enumerate(targets)
            for g, guess in enumerate(guesses)
            if g != t
        ]
        mean = dist.mean(torch.cat(chosen).mean(dim=0))
        self.centre.lerp_(mean, 1 - config.centre_momentum)
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
