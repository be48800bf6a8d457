"""ReSSL: relational self-supervised learning, what CGH is without its hypercolumn.

Source: Zheng et al., NeurIPS 2021 (arXiv 2107.09282); the values are those of its code, mingkai-zheng/ReSSL@4d67daa.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cgh_bench.backbones import Architecture
from cgh_bench.core.config import later
from cgh_bench.pretrain.methods import cgh
from cgh_bench.pretrain.ranges import Count, Fraction, Positive
from cgh_bench.pretrain.recipe import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class Ressl(Method):
    """The student learns the teacher's relations to the queued images; defaults as published for ImageNet."""

    dim: Count = 512
    hidden: Count = 4096
    """Width inside the head."""
    queue_length: Count = 131_072
    momentum: Fraction = 0.999
    student_temperature: Positive = 0.1
    teacher_temperature: Positive = 0.04
    bn_groups: Count = 8
    """Parts of the global batch with their own BatchNorm statistics, as if each were on its own GPU; 1 is plain
    BatchNorm, over the images of each process."""
    shuffled_bn: bool = later(True)
    """Whether BatchNorm sees other neighbours in the teacher than in the student, as in MoCo."""

    def add_networks(self, architecture: Architecture) -> None:
        """Student, teacher and queue."""
        from cgh_bench.pretrain.parts import AlignedQueues, Encoder, MomentumEncoder, mlp, split_batchnorm

        backbone = architecture.build()
        self.student = Encoder(backbone, mlp(backbone.dim, self.hidden, self.dim))
        split_batchnorm(self.student, self.bn_groups)
        self.teacher = MomentumEncoder(self.student)
        self.queue = AlignedQueues(self.queue_length, keys=self.dim)

    def begin_step(self, step: int, steps: int) -> None:
        """The teacher follows the student as it is before this step."""
        self.teacher.follow(self.student, self.momentum)

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The relation loss of one batch, for `views` [weak, strong]; see `Method.forward`."""
        from cgh_bench.core import dist
        from cgh_bench.pretrain.parts import encode_globally, unit
        from cgh_bench.pretrain.relation import relation

        weak, strong = views
        student = unit(self.student(strong))
        every = unit(encode_globally(self.teacher, weak, self.shuffled_bn))
        teacher, queue = every[dist.block(len(every))], self.queue["keys"]
        loss = relation(student, queue, teacher, queue, (self.student_temperature, self.teacher_temperature))
        self.queue.enqueue(keys=every)
        return {"relation": loss}


RECIPES = {
    # The views, optimiser and schedule of CGH, which took them from here.
    "ressl_r50_in1k_200ep": replace(cgh.RECIPES["cgh_r50_in1k_200ep"], method=Ressl(), decay="names"),
    # Nothing is published at this size; all but the method is that of cgh_r18_animals.
    "ressl_r18_animals": replace(
        cgh.RECIPES["cgh_r18_animals"],
        method=Ressl(dim=128, hidden=512, queue_length=512, momentum=0.99, bn_groups=4),
    ),
}
