"""Fine-tuning of the whole network on all labels or on a few: backbone and new head, each at its own learning rate.

Source of the shape: facebookresearch/swav eval_semisup.py (random crops, BatchNorm trained and synchronised, SGD). The
networks after the last epoch count; nothing is chosen, so nothing is chosen on val.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cgh_bench.core.descent import Cosine, Schedule, Steps
from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import AS_IS, IMAGENET_CROP, Crop
from cgh_bench.frozen.selection import Rows
from cgh_bench.tasks.tuned import Tuned

if TYPE_CHECKING:
    import torch

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import ImageSet
    from cgh_bench.frozen.crops import Batches
    from cgh_bench.frozen.finetuning import Tuning
    from cgh_bench.frozen.judge import Judge

SWAV_STEPS = Steps((12, 16), 0.2)


@dataclass(frozen=True)
class FineTune(Tuned):
    """Classify each val image by a network fine-tuned on labelled train images."""

    crop: Crop = IMAGENET_CROP
    trunk_rate: float = 0.01
    head_rate: float = 0.2
    schedule: Schedule = SWAV_STEPS
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if min(self.trunk_rate, self.head_rate, self.weight_decay) < 0 or not 0 <= self.momentum < 1:
            raise UserError(
                f"trunk_rate {self.trunk_rate}, head_rate {self.head_rate} and weight_decay {self.weight_decay} must "
                f"be at least 0, and momentum {self.momentum} from 0 to below 1"
            )
        super().__post_init__()

    def labelled_rows(self, checkpoint: "Checkpoint", train: "ImageSet", seed: int) -> Rows:
        """See `Tuned`."""
        from cgh_bench.frozen.finetuning import has_batch_norm

        rows = super().labelled_rows(checkpoint, train, seed)
        if min(self.batch_size, len(rows)) < 2 and has_batch_norm(checkpoint.architecture.skeleton):
            raise UserError(
                f"a step has one image ({len(rows)} images, batch_size {self.batch_size}), but BatchNorm needs "
                "at least two; increase batch_size or labelled"
            )
        return rows

    def tuning(
        self, checkpoint: "Checkpoint", classes: int, judge: "Judge", seed: int, device: "torch.device"
    ) -> "Tuning":
        """See `Tuned`."""
        import torch

        from cgh_bench.frozen.finetuning import Network, Tuning

        network = Network(checkpoint, classes, seed).to(device)
        groups = [
            {"params": network.backbone.parameters(), "first_rate": self.trunk_rate},
            {"params": network.head.parameters(), "first_rate": self.head_rate},
        ]
        descent = torch.optim.SGD(groups, lr=0.0, momentum=self.momentum, weight_decay=self.weight_decay)
        return Tuning(network, descent, judge, device)

    def batches(self, checkpoint: "Checkpoint", train: "ImageSet", rows: Rows, seed: int) -> "Batches":
        """See `Tuned`."""
        from cgh_bench.frozen.crops import Batches

        return Batches(train, rows, self.crop, self.batch_size, seed)


# facebookresearch/swav eval_semisup.py and README.md, on SimCLR's lists.
SWAV_10 = FineTune(data="imagenet1k_10pct")
SWAV_1 = replace(SWAV_10, data="imagenet1k_1pct", trunk_rate=0.02, head_rate=5.0)
# facebookresearch/vicreg evaluate.py and README.md. There, and in barlowtwins' evaluate.py, each GPU has BatchNorm
# statistics of its own 32 images; here they are of all 256.
VICREG_10 = replace(SWAV_10, trunk_rate=0.01, head_rate=0.1, schedule=Cosine("epoch"))
# zaczgao/Cross-Context_Learning eval_semisup.py, whose defaults are the same for both lists.
CGH_10 = replace(SWAV_10, trunk_rate=0.005, head_rate=0.02, schedule=Steps((30, 60)), epochs=70)
# LayneH/LEWEL main_semi.py, scripts/srun_semi_1p.sh and _10p.sh (the file with its crops was not seen: ImageNet's).
LEWEL_10 = replace(SWAV_10, head_rate=0.1, schedule=Steps((30, 40)), weight_decay=1e-4, epochs=50)

ANIMALS = FineTune(
    data="animals",
    crop=Crop(48, (0.3, 1.0)),
    transform=AS_IS,
    head_rate=0.1,
    schedule=Cosine("step"),
    epochs=10,
    batch_size=64,
)

TASKS = {
    "imagenet_1pct_swav": SWAV_1,
    "imagenet_10pct_swav": SWAV_10,
    "imagenet_1pct_vicreg": replace(VICREG_10, data="imagenet1k_1pct", trunk_rate=0.03, head_rate=0.08),
    "imagenet_10pct_vicreg": VICREG_10,
    # facebookresearch/barlowtwins README.md; its values for 10 % are not given there.
    "imagenet_1pct_barlow": replace(VICREG_10, data="imagenet1k_1pct", trunk_rate=0.005, head_rate=0.5),
    "imagenet_1pct_cgh": replace(CGH_10, data="imagenet1k_1pct"),
    "imagenet_10pct_cgh": CGH_10,
    "imagenet_1pct_lewel": replace(LEWEL_10, data="imagenet1k_1pct", trunk_rate=0.0001, head_rate=1.0),
    "imagenet_10pct_lewel": LEWEL_10,
    # For your own dataset, all layers, all labels: no source; SwAV's values for 10 % of ImageNet.
    "finetune": FineTune(),
    "animals_finetune": ANIMALS,
    "animals_finetune_10pct": replace(ANIMALS, labelled=0.1, epochs=30),
}
