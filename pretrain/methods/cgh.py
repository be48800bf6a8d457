"""CGH: cross-context learning between global and hypercolumn features.

Source: Gao, Feng, Patras, Self-Supervised Representation Learning with Cross-Context Learning between Global and
Hypercolumn Features, WACV 2024 (arXiv 2308.13392); the numbers of the ImageNet recipe are those that take effect in the
authors' code, zaczgao/Cross-Context_Learning@340bca9.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cgh_bench.backbones import Architecture, Backbone
from cgh_bench.backbones.resnet import STAGES, ResNet
from cgh_bench.core import dist
from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.pretrain.parts import (
    AlignedQueues,
    HypercolumnBranch,
    MomentumTwin,
    check_batch,
    mlp,
    of_all,
    split_batchnorm,
)
from cgh_bench.pretrain.recipe import Method, Recipe, at_least
from cgh_bench.pretrain.relation import infonce, relation
from cgh_bench.pretrain.views import Augment, Views

CONTEXTS = ("global", "hyper")


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
    """Parts of the batch of all processes with BatchNorm statistics of their own, as on so many GPUs; 1 is plain
    BatchNorm, of each process's images."""
    shuffled_bn: bool = later(True)
    """Whether the teacher's BatchNorm sees other neighbours than the student's, as in MoCo."""
    split_hyper_bn: bool = later(True)
    """Whether the hypercolumn branch's BatchNorm is split too; in the released code it is not."""
    contexts: tuple[str, ...] = later(CONTEXTS)
    """Both; one alone learns from itself (an ablation)."""
    crossed: bool = later(True)
    """Whether each context learns the other's relations, or (an ablation) its own."""
    centre_momentum: float | None = later(None)
    """Subtract from the teacher's similarities their running mean for each slot of the queue; 0.9 in the released
    code, where it is off."""

    def __post_init__(self) -> None:
        for kind, given, accepted in (("stage", self.stages, STAGES), ("context", self.contexts, CONTEXTS)):
            if not given or len(set(given)) < len(given):
                raise UserError(f"{kind}s {', '.join(given)} must name at least one {kind}, each once")
            for name in given:
                if name not in accepted:
                    raise unknown(kind, name, accepted)
        temperatures = [value for name, value in vars(self).items() if name.endswith("temperature")]
        if min(temperatures) <= 0 or self.handover_epochs < 0 or not 0 <= self.momentum <= 1:
            raise UserError("temperatures must be above 0, handover_epochs at least 0, momentum within 0 and 1")
        at_least(1, dim_global=self.dim_global, dim_hyper=self.dim_hyper, hidden=self.hidden)
        at_least(1, queue_length=self.queue_length, bn_groups=self.bn_groups)
        if self.centre_momentum is not None and not 0 <= self.centre_momentum < 1:
            raise UserError(f"centre_momentum {self.centre_momentum} must be within 0 and below 1, or none")

    def check(self, batch_size: int, views: int) -> None:
        """Two views, the weak one first, then any number of small crops; a batch that fits queue and BN groups."""
        if views < 2 or (views > 2 and "global" not in self.contexts):
            raise UserError(
                "CGH takes 2 views, the teacher's (weak) and the student's (strong), and small crops for the global "
                f"context after them; the recipe has {views}"
            )
        check_batch(batch_size, self.bn_groups, self.queue_length)

    def build(self, architecture: Architecture) -> "CghMethod":
        """Student, teacher and queues."""
        return CghMethod(self, architecture)


class Student(nn.Module):
    """Trunk, global head and hypercolumn branch; the teacher is a copy of it."""

    def __init__(self, config: Cgh, architecture: Architecture) -> None:
        super().__init__()
        self.contexts = config.contexts
        self.backbone = architecture.build()
        if "global" in config.contexts:
            self.global_head = mlp(self.backbone.dim, config.hidden, config.dim_global)
        if "hyper" in config.contexts:
            self.hyper_branch = HypercolumnBranch(
                {name: stage.channels for name, stage in self.backbone.stages.items()},
                config.stages,
                config.hidden,
                config.dim_hyper,
            )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Unit embeddings of images (B, 3, H, W), (B, D_g) of the global and (B, D_h) of the hypercolumn context."""
        pooled, maps = self.backbone.global_and_pyramid(images)
        heads = {
            "global": lambda: self.global_head(pooled),
            "hyper": lambda: self.hyper_branch(maps),
        }
        return tuple(F.normalize(heads[context]().float(), dim=1) for context in self.contexts)

    def of_global(self, images: Tensor) -> Tensor:
        """Unit embeddings (B, D_g) of the global context alone, of images too small for a hypercolumn."""
        return F.normalize(self.global_head(self.backbone(images)).float(), dim=1)


class CghMethod(Method):
    """Each context of the student learns the other context's relations to the queued images from the teacher."""

    def __init__(self, config: Cgh, architecture: Architecture) -> None:
        super().__init__()
        self.config = config
        self.student = Student(config, architecture)
        split_batchnorm(self.student if config.split_hyper_bn else self.student.backbone, config.bn_groups)
        self.teacher = MomentumTwin(self.student, config.momentum)
        widths = {"global": config.dim_global, "hyper": config.dim_hyper}
        self.queues = AlignedQueues(config.queue_length, **{f"of_{c}": widths[c] for c in config.contexts})
        if config.centre_momentum is not None:
            for context in config.contexts:
                self.register_buffer(f"centre_{context}", torch.zeros(config.queue_length))

    @property
    def backbone(self) -> Backbone:
        """The student's trunk."""
        return self.student.backbone

    def begin_step(self, done: float) -> None:
        """The teacher follows the student as it is before this step's descent."""
        self.teacher.follow(self.student)

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted terms of one batch, from `views` [weak, strong, small crops …]; see `Method.forward`.

        With a = min(1, epoch / handover_epochs): (1 - a) InfoNCE within each context + a/2 each crossed relation.
        """
        weak, strong, *crops = views
        contexts = self.config.contexts
        mine = dict(zip(contexts, self.student(strong), strict=True))
        of_crops = [self.student.of_global(crop) for crop in crops]
        everyones = dict(zip(contexts, of_all(self.teacher, weak, self.config.shuffled_bn), strict=True))
        rows = dist.block(len(everyones[contexts[0]]))
        teacher = {context: embeddings[rows] for context, embeddings in everyones.items()}
        handed_over = min(1.0, epoch / self.config.handover_epochs) if self.config.handover_epochs else 1.0
        terms = {}
        if handed_over < 1:
            for context in contexts:
                loss = infonce(mine[context], teacher[context], self._queue(context), self.config.infonce_temperature)
                terms[f"infonce_{context}"] = (1 - handed_over) * loss
        for context in contexts:
            students = [mine[context], *(of_crops if context == "global" else [])]
            losses = [self._relation(context, student, teacher) for student in students]
            terms[f"relation_{context}"] = handed_over / len(contexts) * torch.stack(losses).mean()
        self._remember(everyones)
        return terms

    def _queue(self, context: str) -> Tensor:
        return self.queues[f"of_{context}"]

    def _relation(self, context: str, student: Tensor, teacher: dict[str, Tensor]) -> Tensor:
        """How far `student` (B, D), of `context`, is from the teacher's relations in the context it learns from."""
        (other,) = (set(teacher) - {context}) if self.config.crossed and len(teacher) > 1 else {context}
        temperatures = (
            getattr(self.config, f"student_{context}_temperature"),
            getattr(self.config, f"teacher_{other}_temperature"),
        )
        centre = None if self.config.centre_momentum is None else self.get_buffer(f"centre_{other}")
        return relation(student, self._queue(context), teacher[other], self._queue(other), temperatures, centre)

    @torch.no_grad()
    def _remember(self, everyones: dict[str, Tensor]) -> None:
        """Take the teacher's embeddings of the global batch into centres and queues, after the loss has used these."""
        if self.config.centre_momentum is not None:
            for context, embeddings in everyones.items():
                similarity = self._queue(context) @ embeddings.mean(dim=0)
                self.get_buffer(f"centre_{context}").lerp_(similarity, 1 - self.config.centre_momentum)
        self.queues.enqueue(**{f"of_{context}": embeddings for context, embeddings in everyones.items()})


IMAGENET_WEAK = Augment(size=224)
IMAGENET_STRONG = replace(
    IMAGENET_WEAK, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2, blur=0.5
)

ANIMALS_WEAK = Augment(size=48, crop_area=(0.5, 1.0), rotation_degrees=20.0)
ANIMALS_STRONG = replace(ANIMALS_WEAK, jitter=0.8, brightness=0.4, contrast=0.4, blur=0.2, blur_sigma=(0.1, 1.0))

RECIPES = {
    "cgh_r50_in1k_200ep": Recipe(
        method=Cgh(),
        architecture=ResNet("resnet50"),
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
        architecture=ResNet("resnet18"),
        views=Views((ANIMALS_WEAK, ANIMALS_STRONG)),
        data="animals",
        epochs=8,
        batch_size=128,
        optimizer="adamw",
        base_lr=0.002,
        warmup_epochs=0.5,
    ),
}
