"""CGH: cross-context learning between global and hypercolumn features.

Source: Gao, Feng, Patras, Self-Supervised Representation Learning with Cross-Context Learning between Global and
Hypercolumn Features, WACV 2024 (arXiv 2308.13392); the numbers of the ImageNet recipe are those that take effect in the
authors' code, zaczgao/Cross-Context_Learning@340bca9.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from cgh_bench import dist
from cgh_bench.backbone import STAGES, Architecture, Backbone
from cgh_bench.errors import UserError, unknown
from pretrain.parts import (
    AlignedQueues,
    HypercolumnBranch,
    MomentumTwin,
    check_batch,
    mlp,
    shuffled,
    split_batchnorm,
)
from pretrain.recipe import Method, Recipe
from pretrain.relation import infonce, relation
from pretrain.views import Augment, Views


@dataclass(frozen=True)
class Cgh:
    """Everything CGH can be told; the defaults are the published ImageNet values."""

    dim_global: int = 512
    dim_hyper: int = 512
    hidden: int = 4096
    """Width inside both heads."""
    stages: tuple[str, ...] = ("layer3", "layer4")
    """Stages of the hypercolumn, on the grid of the last."""
    queue_length: int = 131_072
    """Length K of both queues."""
    momentum: float = 0.999
    """Of the teacher, constant."""
    student_global_temperature: float = 0.1
    teacher_global_temperature: float = 0.04
    student_hyper_temperature: float = 0.08
    teacher_hyper_temperature: float = 0.08
    infonce_temperature: float = 0.2
    handover_epochs: float = 5.0
    """From InfoNCE alone to the relational losses alone, linearly, in this many epochs from the first."""
    bn_groups: int = 8
    """Parts of a process's batch with BatchNorm statistics of their own; 1 is plain BatchNorm."""

    def __post_init__(self) -> None:
        for stage in self.stages:
            if stage not in STAGES:
                raise unknown("stage", stage, STAGES)
        temperatures = [value for name, value in vars(self).items() if name.endswith("temperature")]
        if min(temperatures) <= 0 or self.handover_epochs < 0 or not 0 <= self.momentum <= 1:
            raise UserError("temperatures must be above 0, handover_epochs at least 0, momentum within 0 and 1")
        if not self.stages or min(self.bn_groups, self.queue_length) < 1:
            raise UserError("stages must name at least one stage; bn_groups and queue_length must be at least 1")

    def check(self, batch_size: int, views: int) -> None:
        """Two views, the weak one first; a batch that fits queue and BN groups."""
        if views != 2:
            raise UserError(
                f"CGH takes 2 views, the teacher's (weak) and the student's (strong); the recipe has {views}"
            )
        check_batch(batch_size, self.bn_groups, self.queue_length)

    def build(self, architecture: Architecture) -> "CghMethod":
        """Student, teacher and queues."""
        return CghMethod(self, architecture)


class Student(nn.Module):
    """Trunk, global head and hypercolumn branch; the teacher is a copy of it."""

    def __init__(self, config: Cgh, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = Backbone(architecture)
        self.global_head = mlp(self.backbone.dim, config.hidden, config.dim_global)
        self.hyper_branch = HypercolumnBranch(self.backbone.channels, config.stages, config.hidden, config.dim_hyper)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings (B, D_g) of the global and (B, D_h) of the hypercolumn context, of images (B, 3, H, W)."""
        maps = self.backbone.pyramid(images)
        of_global = self.global_head(self.backbone.pool(maps))
        return F.normalize(of_global.float(), dim=1), F.normalize(self.hyper_branch(maps).float(), dim=1)


class CghMethod(Method):
    """Each context of the student learns the other context's relations to the queued images from the teacher."""

    def __init__(self, config: Cgh, architecture: Architecture) -> None:
        super().__init__()
        self.config = config
        self.student = Student(config, architecture)
        split_batchnorm(self.student, config.bn_groups)
        self.teacher = MomentumTwin(self.student, config.momentum)
        self.queues = AlignedQueues(config.queue_length, of_global=config.dim_global, of_hyper=config.dim_hyper)

    @property
    def backbone(self) -> Backbone:
        """The student's trunk."""
        return self.student.backbone

    def forward(self, views: list[Tensor], epoch: float) -> dict[str, Tensor]:
        """The weighted terms of one step, from `views` [weak, strong]; see `Method.forward`.

        With a = min(1, epoch / handover_epochs): (1 - a) InfoNCE within each context + a/2 each crossed relation.
        """
        weak, strong = views
        mine = self.student(strong)
        self.teacher.follow(self.student)
        everyones = shuffled(self.teacher, weak)
        rows = dist.block(len(everyones[0]))
        terms = self._terms(mine, (everyones[0][rows], everyones[1][rows]), epoch)
        self.queues.enqueue(of_global=everyones[0], of_hyper=everyones[1])
        return terms

    def _terms(self, student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], epoch: float) -> dict[str, Tensor]:
        config = self.config
        queue_global, queue_hyper = self.queues["of_global"], self.queues["of_hyper"]
        done = min(1.0, epoch / config.handover_epochs) if config.handover_epochs else 1.0
        terms = {}
        if done < 1:
            tau = config.infonce_temperature
            terms["infonce_global"] = (1 - done) * infonce(student[0], teacher[0], queue_global, tau)
            terms["infonce_hyper"] = (1 - done) * infonce(student[1], teacher[1], queue_hyper, tau)
        global_from_hyper = (config.student_global_temperature, config.teacher_hyper_temperature)
        hyper_from_global = (config.student_hyper_temperature, config.teacher_global_temperature)
        terms["relation_global"] = (
            done / 2 * relation(student[0], queue_global, teacher[1], queue_hyper, global_from_hyper)
        )
        terms["relation_hyper"] = (
            done / 2 * relation(student[1], queue_hyper, teacher[0], queue_global, hyper_from_global)
        )
        return terms


IMAGENET_WEAK = Augment(size=224)
IMAGENET_STRONG = replace(
    IMAGENET_WEAK, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2, blur=0.5
)

ANIMALS_WEAK = Augment(size=48, crop_area=(0.5, 1.0), rotation_degrees=20.0)
ANIMALS_STRONG = replace(ANIMALS_WEAK, jitter=0.8, brightness=0.4, contrast=0.4, blur=0.2, blur_sigma=(0.1, 1.0))

RECIPES = {
    "cgh_r50_in1k_200ep": Recipe(
        method=Cgh(),
        architecture=Architecture("resnet50"),
        views=Views((IMAGENET_WEAK, IMAGENET_STRONG)),
        data="imagenet1k",
        epochs=200,
        batch_size=256,
        base_lr=0.05,
        warmup_epochs=5,
    ),
    # Nothing is published at this size. Chosen so that a few minutes of two cores show more than random weights: AdamW
    # and a low temperature, because 480 steps of SGD learn little; a queue of four batches, because the teacher moves
    # fast, and older keys would be told from the positive by their age instead of their shape; a hand-over as long as
    # the run.
    "cgh_r18_animals": Recipe(
        method=Cgh(
            dim_global=128,
            dim_hyper=128,
            hidden=512,
            queue_length=512,
            momentum=0.99,
            infonce_temperature=0.1,
            handover_epochs=8.0,
            bn_groups=4,
        ),
        architecture=Architecture("resnet18"),
        views=Views((ANIMALS_WEAK, ANIMALS_STRONG)),
        data="animals",
        epochs=8,
        batch_size=128,
        optimizer="adamw",
        base_lr=0.002,
        warmup_epochs=0.5,
    ),
}
