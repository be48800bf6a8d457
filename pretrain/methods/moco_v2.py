"""MoCo v2: momentum contrast with a queue, an MLP head and stronger views.

Source: He et al., Momentum Contrast, CVPR 2020 (arXiv 1911.05722); Chen et al., Improved Baselines with Momentum
Contrastive Learning (arXiv 2003.04297); facebookresearch/moco. Its learning rate falls once per epoch, here at every
step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core.config import later
from cgh_bench.pretrain.methods.cgh import ANIMALS_STRONG, IMAGENET_STRONG
from cgh_bench.pretrain.ranges import Count, Fraction, Positive
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Views

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class MocoV2(Method):
    """A query must find its key among the queued ones; not symmetric. Defaults as published for ImageNet."""

    dim: Count = 128
    hidden: Count = 2048
    """Width inside the head: that of the backbone's feature, in the published ResNet-50."""
    queue_length: Count = 65_536
    momentum: Fraction = 0.999
    temperature: Positive = 0.2
    bn_groups: Count = 8
    """Parts of the global batch with their own BatchNorm statistics, as if each were on its own GPU; 1 is plain
    BatchNorm, over the images of each process."""
    shuffled_bn: bool = later(True)
    """Whether BatchNorm sees other neighbours in the key encoder than in the query encoder."""

    def add_networks(self, architecture: Architecture) -> None:
        """Query encoder (the student), key encoder and queue."""
        from cgh_bench.pretrain.parts import AlignedQueues, Encoder, MomentumEncoder, mlp, split_batchnorm

        backbone = architecture.build()
        self.student = Encoder(backbone, mlp(backbone.dim, self.hidden, self.dim))
        split_batchnorm(self.student, self.bn_groups)
        self.keys = MomentumEncoder(self.student)
        self.queue = AlignedQueues(self.queue_length, keys=self.dim)

    def begin_step(self, step: int, steps: int) -> None:
        """The key encoder follows the query encoder as it is before this step."""
        self.keys.follow(self.student, self.momentum)

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """InfoNCE of one batch, for `views` [key's, query's]; see `Method.forward`."""
        from cgh_bench.core import dist
        from cgh_bench.pretrain.parts import encode_globally, unit
        from cgh_bench.pretrain.relation import infonce

        query = unit(self.student(views[1]))
        keys = unit(encode_globally(self.keys, views[0], self.shuffled_bn))
        loss = infonce(query, keys[dist.block(len(keys))], self.queue["keys"], self.temperature)
        self.queue.enqueue(keys=keys)
        return {"infonce": loss}


RECIPES = {
    "moco_v2_r50_in1k_200ep": Recipe(
        method=MocoV2(),
        architecture=ResNet("resnet50"),
        views=Views((IMAGENET_STRONG, IMAGENET_STRONG)),
        data="imagenet1k",
        epochs=200,
        batch_size=256,
        base_lr=0.03,
        warmup_epochs=0,
        decay="all",
    ),
    # Nothing is published at this size; data, views, optimiser and schedule are those of cgh_r18_animals.
    "moco_v2_r18_animals": Recipe(
        method=MocoV2(dim=128, hidden=512, queue_length=512, momentum=0.99, temperature=0.1, bn_groups=4),
        architecture=ResNet("resnet18"),
        views=Views((ANIMALS_STRONG, ANIMALS_STRONG)),
        data="animals",
        epochs=8,
        batch_size=128,
        optimizer="adamw",
        base_lr=0.002,
        warmup_epochs=0.5,
    ),
}
