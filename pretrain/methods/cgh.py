"""CGH: cross-context learning between global and hypercolumn features.

Source: Gao, Feng, Patras, Self-Supervised Representation Learning with Cross-Context Learning between Global and
Hypercolumn Features, WACV 2024 (arXiv 2308.13392); the values of the ImageNet recipe are those that take effect in the
authors' code, zaczgao/Cross-Context_Learning@340bca9.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.pretrain.ranges import Count, Fraction, NotNegative, Positive, Range
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Augment, Views

if TYPE_CHECKING:
    from torch import Tensor

CONTEXTS = ("global", "hyper")


@dataclass(eq=False)
class Cgh(Method):
    """Each context of the student learns the other context's relations to the queued images from the teacher.

    The defaults are the published ImageNet values.
    """

    dim_global: Count = 512
    dim_hyper: Count = 512
    hidden: Count = 4096
    """Width inside both heads."""
    stages: tuple[str, ...] = ("layer3", "layer4")
    """Stages (of a transformer: blocks) of the hypercolumn, on the grid of the last."""
    queue_length: Count = 131_072
    """Images K in both queues."""
    momentum: Fraction = 0.999
    """For the teacher, constant."""
    student_global_temperature: Positive = 0.1
    teacher_global_temperature: Positive = 0.04
    student_hyper_temperature: Positive = 0.08
    teacher_hyper_temperature: Positive = 0.08
    infonce_temperature: Positive = 0.2
    handover_epochs: NotNegative = 5.0
    """Epochs over which the loss changes, linearly, from InfoNCE alone to the relational losses alone."""
    bn_groups: Count = 8
    """Parts of the global batch with their own BatchNorm statistics, as if each were on its own GPU; 1 is plain
    BatchNorm, over the images of each process."""
    shuffled_bn: bool = later(True)
    """Whether BatchNorm sees other neighbours in the teacher than in the student, as in MoCo."""
    split_hyper_bn: bool = later(True)
    """Whether `bn_groups` split the hypercolumn branch's BatchNorm too, as in the released code on several GPUs; in its
    single process it is not."""
    contexts: tuple[str, ...] = later(CONTEXTS)
    """Both; a single one learns from itself (an ablation)."""
    crossed: bool = later(True)
    """Whether each context learns the other's relations, or its own (an ablation)."""
    centre_momentum: Annotated[float | None, Range(at_least=0, below=1)] = later(None)
    """Subtract from the teacher's similarities their running mean per slot of the queue; 0.9 in the released code, and
    off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, given in (("stage", self.stages), ("context", self.contexts)):
            if not given or len(set(given)) < len(given):
                raise UserError(f"{kind}s {', '.join(given)} must name at least one {kind}, each once")
        for context in self.contexts:
            if context not in CONTEXTS:
                raise unknown("context", context, CONTEXTS)

    def check(self, recipe: Recipe) -> None:
        """Two views, the weak one first, then any number of small crops; a batch that fits queue and BN groups."""
        views, stages = len(recipe.views.augments), recipe.architecture.skeleton.stages
        for stage in self.stages if "hyper" in self.contexts else ():
            if stage not in stages:
                raise unknown(f"stage of {recipe.architecture.name}", stage, stages)
        if views < 2 or (views > 2 and "global" not in self.contexts):
            raise UserError(
                "Cgh needs 2 views, the teacher's (weak) and the student's (strong), then small crops for the global "
                f"context; the recipe has {views}"
            )
        self.check_batch(recipe)

    def add_networks(self, architecture: Architecture) -> None:
        """Student, teacher and queues."""
        import torch

        from cgh_bench.pretrain.parts import AlignedQueues, MomentumEncoder, TwoContexts, split_batchnorm

        both = {"global": self.dim_global, "hyper": self.dim_hyper}
        widths = {context: both[context] for context in self.contexts}
        self.student = TwoContexts(architecture, widths, self.stages, self.hidden)
        split_batchnorm(self.student if self.split_hyper_bn else self.student.backbone, self.bn_groups)
        self.teacher = MomentumEncoder(self.student)
        self.queues = AlignedQueues(self.queue_length, **widths)
        if self.centre_momentum is not None:
            for context in self.contexts:
                self.register_buffer(f"centre_{context}", torch.zeros(self.queue_length))

    def begin_step(self, step: int, steps: int) -> None:
        """The teacher follows the student as it is before this step."""
        self.teacher.follow(self.student, self.momentum)

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted terms of one batch, for `views` [weak, strong, small crops …]; see `Method.forward`.

        With a = min(1, epoch / handover_epochs): (1 - a) InfoNCE within each context + a/2 each crossed relation.
        """
        from cgh_bench.core import dist
        from cgh_bench.pretrain.parts import encode_globally

        weak, strong, *crops = views
        student = dict(zip(self.contexts, self.student(strong), strict=True))
        embedded_crops = [self.student(crop, ("global",))[0] for crop in crops]
        every = dict(zip(self.contexts, encode_globally(self.teacher, weak, self.shuffled_bn), strict=True))
        rows = dist.block(len(every[self.contexts[0]]))
        teacher = {context: embeddings[rows] for context, embeddings in every.items()}
        handed_over = min(1.0, epoch / self.handover_epochs) if self.handover_epochs else 1.0
        contrasts, relations = {}, {}
        for context in self.contexts:
            embeddings = [student[context], *(embedded_crops if context == "global" else [])]
            contrast, relation = self._losses(context, embeddings, teacher, handed_over < 1)
            if contrast is not None:
                contrasts[f"infonce_{context}"] = (1 - handed_over) * contrast
            relations[f"relation_{context}"] = handed_over / len(self.contexts) * relation
        self._enqueue(every)
        return contrasts | relations

    def _losses(
        self, context: str, students: list[Tensor], teacher: dict[str, Tensor], contrasted: bool
    ) -> tuple[Tensor | None, Tensor]:
        """InfoNCE of the first of `students`, each (B, D) in `context`, if wanted; their mean loss of relations.

        One pass over the context's queue serves all: its own relations, the teacher's, and InfoNCE.
        """
        import torch

        from cgh_bench.pretrain.relation import Softmax, contrastive, relational, soft_means

        (source,) = (set(teacher) - {context}) if self.crossed and len(teacher) > 1 else {context}
        own, temperature = self.queues[context], getattr(self, f"student_{context}_temperature")
        centre = None if self.centre_momentum is None else self.get_buffer(f"centre_{source}")
        of_teacher = getattr(self, f"teacher_{source}_temperature")
        asked = [Softmax(each, own, temperature) for each in students]
        asked.append(Softmax(teacher[source], self.queues[source], of_teacher, centre))
        if contrasted:
            asked.append(Softmax(students[0], own, self.infonce_temperature))
        found = soft_means(own, asked)
        target = found[len(students)]
        relations = [relational(each, temperature, mine, target) for each, mine in zip(students, found, strict=False)]
        contrast = (
            contrastive(students[0], teacher[context], self.infonce_temperature, found[-1]) if contrasted else None
        )
        return contrast, torch.stack(relations).mean()

    def _enqueue(self, every: dict[str, Tensor]) -> None:
        """Add the teacher's embeddings of the global batch to centres and queues, after the loss has used these."""
        if self.centre_momentum is not None:
            for context, embeddings in every.items():
                similarity = self.queues[context] @ embeddings.mean(dim=0)
                self.get_buffer(f"centre_{context}").lerp_(similarity, 1 - self.centre_momentum)
        self.queues.enqueue(**every)


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
    # Nothing is published at this size. Chosen so that a few minutes on two cores beat random weights: AdamW and a low
    # temperature, because 480 steps of SGD learn little; a queue of four batches, because the teacher moves fast and
    # older keys would differ from the positive by their age instead of their shape; a hand-over as long as the run.
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
