"""SimSiam: two views, one predictor, no gradient through the other side; neither negatives nor a teacher.

Source: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021 (arXiv 2011.10566); the numbers are
those of its code, facebookresearch/simsiam@a7bc177. Its trunk starts with the last norm of each block at zero; here
all methods start from the same weights, torchvision's.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from cgh_bench.backbones import Architecture, Backbone
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.methods import cgh
from cgh_bench.pretrain.recipe import Method, Recipe, at_least
from cgh_bench.pretrain.views import Views


@dataclass(frozen=True)
class SimSiam:
    """Everything SimSiam can be told; the defaults are the published ImageNet values."""

    dim: int = 2048
    predictor_hidden: int = 512
    constant_predictor_rate: bool = True
    """The predictor's learning rate does not fall (`--fix-pred-lr`, with which the published model was trained)."""

    def __post_init__(self) -> None:
        at_least(1, dim=self.dim, predictor_hidden=self.predictor_hidden)

    def check(self, batch_size: int, views: int) -> None:
        """Two views."""
        if views != 2:
            raise UserError(f"SimSiam takes 2 views; the recipe has {views}")

    def build(self, architecture: Architecture) -> "SimSiamMethod":
        """Trunk, projector and predictor."""
        return SimSiamMethod(self, architecture)


class SimSiamMethod(Method):
    """Each view's prediction must point where the other view's projection points."""

    def __init__(self, config: SimSiam, architecture: Architecture) -> None:
        super().__init__()
        self.trunk = architecture.build()
        width, dim, hidden = self.trunk.dim, config.dim, config.predictor_hidden
        self.projector = nn.Sequential(
            *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)),
            *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)),
            *(nn.Linear(width, dim, bias=False), nn.BatchNorm1d(dim, affine=False)),
        )
        self.predictor = nn.Sequential(
            *(nn.Linear(dim, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)),
            nn.Linear(hidden, dim),
        )
        self.constant_rate = ("predictor.",) if config.constant_predictor_rate else ()

    @property
    def backbone(self) -> Backbone:
        """The trunk."""
        return self.trunk

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Negative cosine of one batch, the mean of both directions; -1 at best. See `Method.forward`."""
        projected = [self.projector(self.trunk(view)) for view in views]
        predicted = [self.predictor(z) for z in projected]
        cosines = [
            F.cosine_similarity(p.float(), z.detach().float()).mean()
            for p, z in zip(predicted, reversed(projected), strict=True)
        ]
        return {"cosine": -(cosines[0] + cosines[1]) / 2}


RECIPES = {
    "simsiam_r50_in1k_100ep": Recipe(
        method=SimSiam(),
        architecture=ResNet("resnet50"),
        views=Views((cgh.IMAGENET_STRONG, cgh.IMAGENET_STRONG)),
        data="imagenet1k",
        epochs=100,
        batch_size=512,
        base_lr=0.05,
        warmup_epochs=0,
        decay="all",
        sync_bn=True,
    ),
    # Nothing is published at this size; all but method and views is that of cgh_r18_animals.
    "simsiam_r18_animals": replace(
        cgh.RECIPES["cgh_r18_animals"],
        method=SimSiam(dim=512, predictor_hidden=128),
        views=Views((cgh.ANIMALS_STRONG, cgh.ANIMALS_STRONG)),
    ),
}
