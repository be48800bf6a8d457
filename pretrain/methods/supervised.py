"""The supervised baseline: cross entropy with the labels, which no other method uses.

Source: Goyal et al., Accurate, Large Minibatch SGD (arXiv 1706.02677), with the cosine schedule of He et al., Bag of
Tricks for Image Classification (arXiv 1812.01187).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.methods import cgh
from cgh_bench.pretrain.ranges import Count
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Augment, Views

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.data import ImageSet


@dataclass(eq=False)
class Supervised(Method):
    """A classifier."""

    number_of_views: ClassVar[int] = 1
    uses_labels: ClassVar[bool] = True
    classes: Count = 1000

    def add_networks(self, architecture: Architecture) -> None:
        """Backbone and linear classifier."""
        from torch import nn

        from cgh_bench.pretrain.parts import Encoder

        backbone = architecture.build()
        classifier = nn.Linear(backbone.dim, self.classes)
        nn.init.normal_(classifier.weight, std=0.01)  # Goyal et al., §5.1
        nn.init.zeros_(classifier.bias)
        self.student = Encoder(backbone, classifier)

    def check_images(self, images: ImageSet) -> None:
        """See `Method.check_images`: every image has one label, and the classifier an output for it."""
        if images.multi_label:
            raise UserError(f"{images.name} is multi-label; Supervised needs one class per image")
        if (found := len(images.classes)) > self.classes:
            raise UserError(f"{images.name} has more than {self.classes} classes; set method.classes={found} or more")

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Cross entropy of one batch; see `Method.forward`."""
        from torch.nn import functional as F

        assert labels is not None
        return {"cross_entropy": F.cross_entropy(self.student(views[0]).float(), labels)}


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
