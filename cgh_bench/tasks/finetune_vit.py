"""Fine-tuning of vision transformers as MAE and BEiT do: layer decay, drop path, mixup and the rest, by timm's parts.

The networks after the last epoch count; nothing is chosen. Where several processes train, each mixes its own images.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cgh_bench.core.descent import Cosine, Schedule
from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import AS_IS, BICUBIC_CROP, IMAGENET_KNN, Crop, EvalTransform
from cgh_bench.frozen.selection import Rows
from cgh_bench.tasks.tuned import Tuned

if TYPE_CHECKING:
    import torch

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import ImageSet
    from cgh_bench.frozen.crops import Batches
    from cgh_bench.frozen.judge import Judge
    from cgh_bench.frozen.vit_tuning import VitTuning


DOWN_TO_1E_6 = Cosine(warmup=5, last=5e-4)
"""From 2e-3."""


@dataclass(frozen=True)
class FineTuneVit(Tuned):
    """Classify each val image by a vision transformer fine-tuned as MAE and BEiT do, on the mean of its patches."""

    transform: EvalTransform = IMAGENET_KNN
    crop: Crop = BICUBIC_CROP
    policy: str = "rand-m9-mstd0.5-inc1"
    """timm's `auto_augment`; empty: none."""
    erased: float = 0.25
    """How often a part of an image becomes noise."""
    mixup: float = 0.8
    cutmix: float = 1.0
    """The parameters of the beta distributions; where both are above 0, each has half of the batches."""
    smoothing: float = 0.1
    """The share of a label that is spread over all classes."""
    rate: float = 2e-3
    """The head's, as it is, never rescaled by the batch size."""
    layer_decay: float = 0.65
    """The rate of a layer as a share of that of the next."""
    weight_decay: float = 0.05
    """For matrices, but not for the class token and the positions."""
    drop_path: float = 0.1
    """How often a branch of the last block is left out; of the first never, in between linearly."""
    schedule: Schedule = DOWN_TO_1E_6
    epochs: int = 100
    batch_size: int = 1024
    """An epoch has full batches only; what is left begins the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = {name: getattr(self, name) for name in ("erased", "smoothing", "drop_path", "layer_decay")}
        if not all(0 <= value <= 1 for value in shares.values()):
            raise UserError(", ".join(f"{name} {value:g}" for name, value in shares.items()) + " must be from 0 to 1")
        if self.rate <= 0 or min(self.weight_decay, self.mixup, self.cutmix) < 0:
            raise UserError(
                f"rate {self.rate:g} must be above 0, weight_decay {self.weight_decay:g}, mixup {self.mixup:g} and "
                f"cutmix {self.cutmix:g} at least 0"
            )

    def check_backbone(self, checkpoint: "Checkpoint") -> None:
        """Refuse all but the vision transformers that timm builds."""
        from cgh_bench.frozen.vit_tuning import require_vit

        require_vit(checkpoint)

    def labelled_rows(self, checkpoint: "Checkpoint", train: "ImageSet", seed: int) -> Rows:
        """See `Tuned`."""
        from cgh_bench.core import dist

        rows, pairs = super().labelled_rows(checkpoint, train, seed), 2 * dist.world_size()
        if self.batch_size % pairs or self.batch_size > len(rows):
            raise UserError(
                f"batch_size {self.batch_size} must be a multiple of {pairs}, since images are mixed in pairs, and at "
                f"most the {len(rows):,} train images; set batch_size={max(1, len(rows) // pairs) * pairs} or less"
            )
        return rows

    def tuning(
        self, checkpoint: "Checkpoint", classes: int, judge: "Judge", seed: int, device: "torch.device"
    ) -> "VitTuning":
        """See `Tuned`."""
        from cgh_bench.frozen.vit_tuning import Mixing, VitNetwork, VitTuning, by_layer

        network = VitNetwork(checkpoint, classes, self.drop_path, seed).to(device)
        optimizer = by_layer(network, self.rate, self.layer_decay, self.weight_decay)
        mixing = Mixing(self.mixup, self.cutmix, self.smoothing, self.erased, classes)
        return VitTuning(network, optimizer, judge, device, mixing, seed)

    def batches(self, checkpoint: "Checkpoint", train: "ImageSet", rows: Rows, seed: int) -> "Batches":
        """See `Tuned`."""
        from cgh_bench.frozen.crops import Batches
        from cgh_bench.frozen.vit_tuning import Augmented

        given = checkpoint.preprocessing
        red, green, blue = (value / given.input_range for value in given.mean)
        crop = Augmented(self.crop, self.policy, (red, green, blue))
        return Batches(train, rows, crop, self.batch_size, seed, len(rows) // self.batch_size)


# facebookresearch/mae@efb2a80 FINETUNE.md and main_finetune.py: base rates 5e-4 and 1e-3, times 1024 / 256, to 1e-6.
MAE_BASE = FineTuneVit("imagenet1k")
MAE_LARGE = replace(
    MAE_BASE, rate=4e-3, layer_decay=0.75, drop_path=0.2, schedule=Cosine(warmup=5, last=2.5e-4), epochs=50
)

TASKS = {
    "imagenet_finetune_mae_base": MAE_BASE,
    "imagenet_finetune_mae_large": MAE_LARGE,
    "imagenet_finetune_mae_huge": replace(MAE_LARGE, drop_path=0.3),
    # microsoft/unilm beit/get_started_for_image_classification.md, of networks pretrained without labels.
    "imagenet_finetune_beit_base": replace(MAE_BASE, rate=4e-3, schedule=Cosine(warmup=20, last=2.5e-4)),
    "imagenet_finetune_beit_large": replace(MAE_LARGE, rate=1e-3, schedule=Cosine(warmup=5, last=1e-3)),
    # For a dataset of your own: MAE's values for its base network, the rate scaled to smaller batches.
    "finetune_vit": replace(MAE_BASE, data="", rate=5e-4, schedule=Cosine(warmup=5, last=2e-3), batch_size=256),
    "animals_finetune_vit": FineTuneVit(
        "animals",
        transform=AS_IS,
        crop=Crop(48, (0.3, 1.0)),
        rate=5e-4,
        schedule=Cosine(warmup=2, last=2e-3),
        epochs=10,
        batch_size=64,
    ),
}
