"""ReSSL: relational self-supervised learning, what CGH is without its hypercolumn.

Source: Zheng et al., NeurIPS 2021 (arXiv 2107.09282); the numbers are those of its code,
mingkai-zheng/ReSSL@4d67daa.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from cgh_bench.backbones import Architecture, Backbone
from cgh_bench.core import dist
from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.methods import cgh
from cgh_bench.pretrain.methods.moco_v2 import Encoder
from cgh_bench.pretrain.parts import AlignedQueues, MomentumTwin, check_batch, of_all, split_batchnorm
from cgh_bench.pretrain.recipe import Method, at_least
from cgh_bench.pretrain.relation import relation


@dataclass(frozen=True)
class Ressl:
    """Everything ReSSL can be told; the defaults are the published ImageNet values."""

    dim: int = 512
    hidden: int = 4096
    """Width inside the head."""
    queue_length: int = 131_072
    momentum: float = 0.999
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    bn_groups: int = 8
    """Parts of the batch of all processes with BatchNorm statistics of their own, as on so many GPUs; 1 is plain
    BatchNorm, of each process's images."""
    shuffled_bn: bool = later(True)
    """Whether the teacher's BatchNorm sees other neighbours than the student's, as in MoCo."""

    def __post_init__(self) -> None:
        if min(self.student_temperature, self.teacher_temperature) <= 0 or not 0 <= self.momentum <= 1:
            raise UserError("temperatures must be above 0, momentum within 0 and 1")
        at_least(1, dim=self.dim, hidden=self.hidden, queue_length=self.queue_length, bn_groups=self.bn_groups)

    def check(self, batch_size: int, views: int) -> None:
        """Two views, the weak one first; a batch that fits queue and BN groups."""
        if views != 2:
            raise UserError(
                f"ReSSL takes 2 views, the teacher's (weak) and the student's (strong); the recipe has {views}"
            )
        check_batch(batch_size, self.bn_groups, self.queue_length)

    def build(self, architecture: Architecture) -> "ResslMethod":
        """Student, teacher and queue."""
        return ResslMethod(self, architecture)


class ResslMethod(Method):
    """The student learns the teacher's relations to the queued images."""

    def __init__(self, config: Ressl, architecture: Architecture) -> None:
        super().__init__()
        self.shuffled_bn = config.shuffled_bn
        self.temperatures = (config.student_temperature, config.teacher_temperature)
        self.student = Encoder(architecture, config.hidden, config.dim)
        split_batchnorm(self.student, config.bn_groups)
        self.teacher = MomentumTwin(self.student, config.momentum)
        self.queue = AlignedQueues(config.queue_length, keys=config.dim)

    @property
    def backbone(self) -> Backbone:
        """The student's trunk."""
        return self.student.backbone

    def begin_step(self, done: float) -> None:
        """The teacher follows the student as it is before this step's descent."""
        self.teacher.follow(self.student)

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The relation loss of one batch, from `views` [weak, strong]; see `Method.forward`."""
        weak, strong = views
        (mine,) = self.student(strong)
        (everyones,) = of_all(self.teacher, weak, self.shuffled_bn)
        keys, queue = everyones[dist.block(len(everyones))], self.queue["keys"]
        loss = relation(mine, queue, keys, queue, self.temperatures)
        self.queue.enqueue(keys=everyones)
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
