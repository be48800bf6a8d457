"""MoCo v2: momentum contrast with a queue, an MLP head and stronger views.

Source: He et al., Momentum Contrast, CVPR 2020 (arXiv 1911.05722); Chen et al., Improved Baselines with Momentum
Contrastive Learning (arXiv 2003.04297); facebookresearch/moco.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from cgh_bench.backbones import Architecture, Backbone
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core import dist
from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.methods.cgh import ANIMALS_STRONG, IMAGENET_STRONG
from cgh_bench.pretrain.parts import AlignedQueues, MomentumTwin, check_batch, mlp, of_all, split_batchnorm
from cgh_bench.pretrain.recipe import Method, Recipe, at_least
from cgh_bench.pretrain.relation import infonce
from cgh_bench.pretrain.views import Views


@dataclass(frozen=True)
class MocoV2:
    """Everything MoCo v2 can be told; the defaults are the published ImageNet values."""

    dim: int = 128
    hidden: int = 2048
    """Width inside the head: the trunk's, in the published ResNet-50."""
    queue_length: int = 65_536
    momentum: float = 0.999
    temperature: float = 0.2
    bn_groups: int = 8
    """Parts of the batch of all processes with BatchNorm statistics of their own, as on so many GPUs; 1 is plain
    BatchNorm, of each process's images."""
    shuffled_bn: bool = later(True)
    """Whether the key encoder's BatchNorm sees other neighbours than the query encoder's, as in MoCo."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 <= self.momentum <= 1:
            raise UserError("temperature must be above 0, momentum within 0 and 1")
        at_least(1, dim=self.dim, hidden=self.hidden, queue_length=self.queue_length, bn_groups=self.bn_groups)

    def check(self, batch_size: int, views: int) -> None:
        """Two views; a batch that fits queue and BN groups."""
        if views != 2:
            raise UserError(f"MoCo v2 takes 2 views, the key's and the query's; the recipe has {views}")
        check_batch(batch_size, self.bn_groups, self.queue_length)

    def build(self, architecture: Architecture) -> "MocoV2Method":
        """Query encoder, key encoder and queue."""
        return MocoV2Method(self, architecture)


class Encoder(nn.Module):
    """Trunk and projection head."""

    def __init__(self, architecture: Architecture, hidden: int, dim: int) -> None:
        super().__init__()
        self.backbone = architecture.build()
        self.head = mlp(self.backbone.dim, hidden, dim)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Unit embeddings (B, D) of images (B, 3, H, W)."""
        return (F.normalize(self.head(self.backbone(images)).float(), dim=1),)


class MocoV2Method(Method):
    """A query must find its key among the queued ones. Not symmetric, as published."""

    def __init__(self, config: MocoV2, architecture: Architecture) -> None:
        super().__init__()
        self.temperature, self.shuffled_bn = config.temperature, config.shuffled_bn
        self.encoder = Encoder(architecture, config.hidden, config.dim)
        split_batchnorm(self.encoder, config.bn_groups)
        self.momentum_encoder = MomentumTwin(self.encoder, config.momentum)
        self.queue = AlignedQueues(config.queue_length, keys=config.dim)

    @property
    def backbone(self) -> Backbone:
        """The query encoder's trunk."""
        return self.encoder.backbone

    def begin_step(self, done: float) -> None:
        """The key encoder follows the query encoder as it is before this step's descent."""
        self.momentum_encoder.follow(self.encoder)

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """InfoNCE of one batch, from `views` [key's, query's]; see `Method.forward`."""
        (query,) = self.encoder(views[1])
        (keys,) = of_all(self.momentum_encoder, views[0], self.shuffled_bn)
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
