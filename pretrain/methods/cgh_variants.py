"""More recipes of CGH: the released code's quirks, ablations, small crops, other data.

Source: as `cgh.py`. Only ImageNet's configuration was released. For other datasets the authors' values are unknown; the
values here were chosen for the reasons in the comments and never tuned.
"""

from dataclasses import replace
from typing import Any, cast

from cgh_bench.backbones.resnet import ResNet, Stem
from cgh_bench.backbones.vit import ViT
from cgh_bench.data.preprocessing import Preprocessing
from cgh_bench.pretrain.methods.cgh import IMAGENET_STRONG, IMAGENET_WEAK, Cgh
from cgh_bench.pretrain.methods.cgh import RECIPES as PUBLISHED
from cgh_bench.pretrain.recipe import Recipe
from cgh_bench.pretrain.views import Views

IMAGENET, ANIMALS = PUBLISHED["cgh_r50_in1k_200ep"], PUBLISHED["cgh_r18_animals"]

# Sizes and areas of the released code's small crops.
CROPS = tuple(
    replace(IMAGENET_STRONG, size=size, crop_area=area)
    for size, area in ((192, (0.172, 0.86)), (160, (0.143, 0.715)), (128, (0.114, 0.571)), (96, (0.086, 0.429)))
)


def _variant(recipe: Recipe, **changes: Any) -> Recipe:
    """`recipe` with changed settings of its method."""
    return replace(recipe, method=replace(cast(Cgh, recipe.method), **changes))


ABLATIONS: dict[str, dict[str, Any]] = {
    "global_only": {"contexts": ("global",)},
    "hyper_only": {"contexts": ("hyper",)},
    "same_context": {"crossed": False},
    "stages_2_4": {"stages": ("layer2", "layer3", "layer4")},
    "stage_4": {"stages": ("layer4",)},  # published: stages 3 and 4
    "no_warmup": {"handover_epochs": 0.0},
}


def _small(name: str, size: int, epochs: int, queue_length: int, stem: Stem, preprocessing: Preprocessing) -> Recipe:
    """A ResNet-18 on a small dataset of small images."""
    # No blur for images of very few pixels (SimCLR, arXiv 2002.05709, B.9, on CIFAR-10).
    blur = {"blur": 0.0} if size < 64 else {"blur_sigma": (0.1, 2.0 * size / 224)}
    return Recipe(
        # Widths of MoCo's demo on CIFAR-10, doubled for two contexts; a teacher that moves faster, because a run has a
        # hundredth of ImageNet's steps; a queue of a tenth of the images, as on ImageNet.
        method=Cgh(dim_global=256, dim_hyper=256, hidden=2048, queue_length=queue_length, momentum=0.99, bn_groups=8),
        architecture=ResNet("resnet18", stem=stem),
        views=Views((replace(IMAGENET_WEAK, size=size), replace(IMAGENET_STRONG, size=size, **blur))),
        data=name,
        epochs=epochs,
        batch_size=256,
        base_lr=0.06,  # MoCo's demo on CIFAR-10: 0.06 at 512; ReSSL on small datasets: 0.06 at 256
        warmup_epochs=5,
        weight_decay=5e-4,  # as both
        preprocessing=preprocessing,
    )


# Means and standard deviations of the training images; Tiny-ImageNet's are the released code's.
CIFAR10 = Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
CIFAR100 = Preprocessing(mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))
STL10 = Preprocessing(mean=(0.4408, 0.4279, 0.3867), std=(0.2683, 0.2610, 0.2687))
TINY = Preprocessing(mean=(0.4802, 0.4481, 0.3975), std=(0.2302, 0.2265, 0.2262))

RECIPES = {
    # The one thing that the released code, run as its README says, computes differently: the norms of shortcuts and of
    # the hypercolumn decay, because its test of names misses them.
    "cgh_r50_in1k_200ep_strict": replace(IMAGENET, decay="names"),
    "cgh_r50_in1k_200ep_multicrop": replace(IMAGENET, views=Views((*IMAGENET.views.augments, *CROPS))),
    **{f"cgh_r50_in1k_200ep_{name}": _variant(IMAGENET, **changes) for name, changes in ABLATIONS.items()},
    **{f"cgh_r18_animals_{name}": _variant(ANIMALS, **changes) for name, changes in ABLATIONS.items()},
    # A transformer: the hypercolumn is of two blocks, which share a grid, here of 4 × 4 patches. A step takes twice the
    # time of a ResNet-18's, so there are half as many.
    "cgh_vit_tiny_animals": replace(
        _variant(ANIMALS, stages=("block8", "block12"), handover_epochs=4.0),
        architecture=ViT("vit_tiny_patch12_48"),
        epochs=4,
        base_lr=0.001,
    ),
    # A tenth of the images: about a tenth of the queue, and a teacher that moves faster for fewer steps.
    "cgh_r50_in100_200ep": replace(
        _variant(IMAGENET, queue_length=16_384, momentum=0.99), data="imagenet100", base_lr=0.06
    ),
    # The 3x3 stem is the released code's for CIFAR, the stock stem for the others. At 32 pixels it leaves a 4x4 grid.
    "cgh_r18_cifar10_200ep": _small("cifar10", 32, 200, 4096, "cifar", CIFAR10),
    "cgh_r18_cifar100_200ep": _small("cifar100", 32, 200, 4096, "cifar", CIFAR100),
    # Train and unlabelled images together are 105,000.
    "cgh_r18_stl10_200ep": _small("stl10", 96, 200, 16_384, "imagenet", STL10),
    "cgh_r18_tiny_imagenet_200ep": _small("tiny_imagenet", 64, 200, 16_384, "imagenet", TINY),
}
