"""The supervised baseline: cross entropy with the labels, which every other method does without.

Source: Goyal et al., Accurate, Large Minibatch SGD (arXiv 1706.02677), with the cosine of He et al., Bag of Tricks for
Image Classification (arXiv 1812.01187).
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from cgh_bench.backbones import Architecture, Backbone
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.methods import cgh
from cgh_bench.pretrain.recipe import Method, Recipe, at_least
from cgh_bench.pretrain.views import Augment, Views


@dataclass(frozen=True)
class Supervised:
    """Everything it can be told."""

    classes: int = 1000

    def __post_init__(self) -> None:
        at_least(1, classes=self.classes)

    def check(self, batch_size: int, views: int) -> None:
        """One view."""
        if views != 1:
            raise UserError(f"the supervised baseline takes 1 view; the recipe has {views}")

    def build(self, architecture: Architecture) -> "SupervisedMethod":
        """Trunk and classifier."""
        return SupervisedMethod(self, architecture)


class SupervisedMethod(Method):
    """A classifier."""

    def __init__(self, config: Supervised, architecture: Architecture) -> None:
        super().__init__()
        self.trunk = architecture.build()
        self.classifier = nn.Linear(self.trunk.dim, config.classes)
        nn.init.normal_(self.classifier.weight, std=0.01)  # Goyal et al., §5.1
        nn.init.zeros_(self.classifier.bias)

    @property
    def backbone(self) -> Backbone:
        """The trunk."""
        return self.trunk

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Cross entropy of one batch; see `Method.forward`."""
        assert labels is not None
        classes = self.classifier.out_features
        if int(labels.max()) >= classes:
            raise UserError(f"the data have more than {classes} classes; set method.classes={int(labels.max()) + 1}")
        (images,) = views
        return {"cross_entropy": F.cross_entropy(self.classifier(self.trunk(images)).float(), labels)}


RECIPES = {
    "supervised_r50_in1k_100ep": Recipe(
        method=Supervised(),
        architecture=ResNet("resnet50"),
        views=Views((Augment(size=224, crop_area=(0.08, 1.0)),)),
        data="imagenet1k",
        epochs=100,
        batch_size=256,
        base_lr=0.1,
        warmup_epochs=5,
    ),
    # An upper bound for the others: all but method and views is that of cgh_r18_animals.
    "supervised_r18_animals": replace(
        cgh.RECIPES["cgh_r18_animals"], method=Supervised(classes=10), views=Views((cgh.ANIMALS_WEAK,))
    ),
}
