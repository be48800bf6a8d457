"""Linear probe as papers train it: random crops through the frozen backbone, SGD, a whole grid of heads at once.

One forward pass of the backbone serves every learning rate, weight decay and feature: the heads are one matrix. On val
and on the held-out images that the choice is made on, they see features of the untouched image, extracted once, since
the backbone is frozen; that it was is checked at the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from cgh_bench.core.config import later
from cgh_bench.core.descent import BY_STEP, SGD, Cosine, Descent, Steps
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair, ImageSet
from cgh_bench.data.transform import AS_IS, BICUBIC_CROP, IMAGENET_KNN, Crop
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.crop_probe import CropProbe

if TYPE_CHECKING:
    import torch

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.heads import SgdProbe


@dataclass(frozen=True)
class LinearSgd(CropProbe):
    """Classify each val image by a linear classifier trained with SGD on random crops."""

    features: tuple[str, ...] = ("layer4",)
    descent: Descent = SGD
    norm: float | None = later(None)
    """The epsilon of a BatchNorm without learned scale and shift before the heads."""

    def __post_init__(self) -> None:
        if not self.features:
            raise UserError("features is empty; expected at least one, such as layer4")
        if self.norm is not None and self.norm < 0:
            raise UserError(f"norm {self.norm} must not be below 0")
        super().__post_init__()

    @property
    def grid(self) -> list[tuple[str, float, float]]:
        """Feature, learning rate and weight decay of every head."""
        return list(product(self.features, self.learning_rates, self.weight_decays))

    def plan(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders) -> list[str]:
        """What the heads take, and how long their training, by the backbone's speed on a few images."""
        from cgh_bench.frozen import features

        each = len(self.learning_rates) * len(self.weight_decays)
        numbers = each * sum(self._widths(checkpoint)) * len(data.train.classes)
        return [
            *features.plan(checkpoint, data.val, self.transform, self.features, folders.features, self.precision),
            f"{len(self.grid)} heads, {3 * 4 * numbers / 1e6:,.0f} MB of memory with momentum and gradient",
            self.planned(checkpoint, data.train, self.features),
        ]

    def _widths(self, checkpoint: "Checkpoint") -> list[int]:
        """How many numbers each of the features has."""
        architecture = checkpoint.architecture
        return [architecture.width(architecture.targets(name)) for name in self.features]

    def probe(
        self,
        checkpoint: "Checkpoint",
        judged: Mapping[str, ImageSet],
        folders: Folders,
        seed: int,
        device: "torch.device",
    ) -> "SgdProbe":
        """See `CropProbe`."""
        import torch
        from torch import nn

        from cgh_bench.frozen.features import extract_all
        from cgh_bench.frozen.heads import Heads, SgdProbe, first_weights

        rates, decays = torch.tensor(list(product(self.learning_rates, self.weight_decays)), device=device).T
        heads = []
        for width in self._widths(checkpoint):
            first = first_weights(width, len(judged["val"].classes), self.initial, seed).to(device)
            norm = None if self.norm is None else nn.BatchNorm1d(width, self.norm, affine=False).to(device)
            heads.append(Heads(first, rates, decays, self.descent, norm))
        probe = SgdProbe(checkpoint, self.features, heads, device, self.precision)
        probe.banks = {
            name: extract_all(checkpoint, some, self.transform, self.features, folders.features, self.precision)
            for name, some in judged.items()
        }
        return probe


# facebookresearch/moco main_lincls.py.
MOCO = LinearSgd(data="imagenet1k", learning_rates=(30.0,), schedule=Steps((60, 80)))
# facebookresearch/swav eval_linear.py (but its pixel deviation of .228, a slip, is not taken over: preprocessing is the
# checkpoint's); facebookresearch/barlowtwins evaluate.py has the same values.
SWAV = replace(MOCO, learning_rates=(0.3,), weight_decays=(1e-6,), schedule=Cosine("epoch"))

# facebookresearch/dinov2 dinov2/eval/linear.py: 13 rates, times 1024 / 256 (8 GPUs of 128).
DINOV2_RATES = tuple(4 * rate for rate in (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1))
DINOV2 = replace(
    MOCO,
    transform=IMAGENET_KNN,
    crop=BICUBIC_CROP,
    features=("cls", "cls+patch_mean", "last4", "last4+patch_mean"),
    learning_rates=DINOV2_RATES,
    schedule=BY_STEP,
    epochs=10,
    batch_size=1024,
    held_out=0.1,
    steps=1250,
)
DINO = replace(
    MOCO,
    transform=IMAGENET_KNN,
    features=("last4",),
    learning_rates=(0.004,),
    schedule=Cosine("epoch"),
    batch_size=1024,
)

TASKS = {
    "linear_sgd": LinearSgd(learning_rates=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0), held_out=0.1),
    "imagenet_linear_moco": MOCO,
    # zaczgao/Cross-Context_Learning eval_lincls.py; mingkai-zheng/ReSSL linear_eval.py has the same values.
    "imagenet_linear_cgh": replace(MOCO, learning_rates=(0.3,), schedule=BY_STEP),
    "imagenet_linear_swav": SWAV,
    # facebookresearch/vicreg evaluate.py and README.md.
    "imagenet_linear_vicreg": replace(SWAV, learning_rates=(0.02,)),
    # LayneH/LEWEL, https://arxiv.org/abs/2203.06895.
    "imagenet_linear_lewel": replace(MOCO, learning_rates=(0.4,), schedule=Steps((30, 40)), epochs=50),
    # facebookresearch/simsiam main_lincls.py --lars: base rate 0.1 times 4096 / 256.
    "imagenet_linear_simsiam": replace(
        MOCO,
        learning_rates=(1.6,),
        descent=Descent(0.9, trust=0.001),
        schedule=Cosine("epoch"),
        epochs=90,
        batch_size=4096,
    ),
    # The rates of DINOv2 on a ResNet. There the features are ViT blocks, and the best head is chosen on val.
    "imagenet_linear_dinov2": replace(
        MOCO,
        features=("layer4", "layer3+layer4"),
        learning_rates=DINOV2_RATES,
        schedule=BY_STEP,
        epochs=10,
        batch_size=1024,
        held_out=0.01,
    ),
    # The same of ViTs, with that file's features; 10 epochs of 1,250 steps whatever the number of images.
    "imagenet_linear_dinov2_vit": DINOV2,
    # facebookresearch/dinov3 dinov3/eval/linear.py: the same rates on one feature.
    "imagenet_linear_dinov3_vit": replace(DINOV2, features=("cls+patch_mean",)),
    # facebookresearch/dino eval_linear.py and README.md, base rate 0.001 times 1024 / 256; bytedance/ibot
    # evaluation/eval_linear.py has the same. The first is of small ViTs, the second of larger ones.
    "imagenet_linear_dino_vit_small": DINO,
    "imagenet_linear_dino_vit_base": replace(DINO, features=("cls+patch_mean",)),
    # facebookresearch/mae main_linprobe.py, util/lars.py and FINETUNE.md: base rate 0.1 times 16384 / 256, 90 epochs of
    # ViT-B (50 of L and H). There BatchNorm is of each GPU's images, and a last batch that is not full is left out.
    "imagenet_linear_mae": replace(
        DINO,
        crop=BICUBIC_CROP,
        features=("cls",),
        learning_rates=(6.4,),
        descent=Descent(0.9, trust=0.001, spare_biases=True),
        schedule=Cosine("step", warmup=10),
        epochs=90,
        batch_size=16_384,
        norm=1e-6,
    ),
    "animals_linear_sgd": LinearSgd(
        data="animals",
        crop=Crop(48, (0.3, 1.0)),
        transform=AS_IS,
        features=("layer4", "layer3+layer4"),
        learning_rates=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        weight_decays=(0.0, 1e-4),
        epochs=10,
        held_out=0.1,
    ),
}
