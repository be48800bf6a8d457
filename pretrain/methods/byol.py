"""BYOL: predict what a slow copy of the network makes of another view; no negatives.

Source: Grill et al., Bootstrap Your Own Latent, NeurIPS 2020 (arXiv 2006.07733); the numbers are those of its code,
google-deepmind/deepmind-research, byol/configs/byol.py, for 300 epochs.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from cgh_bench.backbones import Architecture, Backbone
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.methods import cgh
from cgh_bench.pretrain.parts import MomentumTwin
from cgh_bench.pretrain.recipe import Method, Recipe, at_least
from cgh_bench.pretrain.schedule import rising
from cgh_bench.pretrain.views import Augment, Views


@dataclass(frozen=True)
class Byol:
    """Everything BYOL can be told; the defaults are the published ImageNet values for 300 epochs."""

    dim: int = 256
    hidden: int = 4096
    """Width inside projector and predictor."""
    momentum: float = 0.99
    """Of the target network at first; it rises to 1 over the run, by half a cosine."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise UserError(f"momentum {self.momentum} must be within 0 and 1")
        at_least(1, dim=self.dim, hidden=self.hidden)

    def check(self, batch_size: int, views: int) -> None:
        """Two views."""
        if views != 2:
            raise UserError(f"BYOL takes 2 views; the recipe has {views}")

    def build(self, architecture: Architecture) -> "ByolMethod":
        """Online network, predictor and target network."""
        return ByolMethod(self, architecture)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs)
    )


class Online(nn.Module):
    """Trunk and projector; the target network is a copy of it."""

    def __init__(self, config: Byol, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = architecture.build()
        self.projector = _mlp(self.backbone.dim, config.hidden, config.dim)

    def forward(self, images: Tensor) -> Tensor:
        """Projections (B, D) of images (B, 3, H, W)."""
        projections: Tensor = self.projector(self.backbone(images))
        return projections


class ByolMethod(Method):
    """The prediction from one view must point where the target network's projection of the other view does."""

    def __init__(self, config: Byol, architecture: Architecture) -> None:
        super().__init__()
        self.config = config
        self.online = Online(config, architecture)
        self.predictor = _mlp(config.dim, config.hidden, config.dim)
        self.target = MomentumTwin(self.online, config.momentum)

    @property
    def backbone(self) -> Backbone:
        """The online network's trunk."""
        return self.online.backbone

    def begin_step(self, done: float) -> None:
        """The target network follows the online one, ever more slowly."""
        self.target.momentum = rising(self.config.momentum, done)
        self.target.follow(self.online)

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Squared distance of unit vectors of one batch, the sum of both directions (eq. 2); see `Method.forward`."""
        predicted = [self.predictor(self.online(view)) for view in views]
        targets = [self.target(view) for view in views]
        cosines = [
            F.cosine_similarity(p.float(), t.float()).mean() for p, t in zip(predicted, reversed(targets), strict=True)
        ]
        return {"distance": 4 - 2 * (cosines[0] + cosines[1])}


# The paper's table 6: the two views differ in blur and solarisation.
FIRST = Augment(
    size=224,
    crop_area=(0.08, 1.0),
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grey=0.2,
    blur=1.0,
)
SECOND = replace(FIRST, blur=0.1, solarize=0.2)

RECIPES = {
    "byol_r50_in1k_300ep": Recipe(
        method=Byol(),
        architecture=ResNet("resnet50"),
        views=Views((FIRST, SECOND)),
        data="imagenet1k",
        epochs=300,
        batch_size=4096,
        base_lr=0.3,
        warmup_epochs=10,
        optimizer="lars",
        weight_decay=1e-6,
        sync_bn=True,
    ),
    # Nothing is published at this size; all but method and views is that of cgh_r18_animals.
    "byol_r18_animals": replace(
        cgh.RECIPES["cgh_r18_animals"],
        method=Byol(dim=128, hidden=512, momentum=0.99),
        views=Views((cgh.ANIMALS_STRONG, cgh.ANIMALS_STRONG)),
    ),
}
