"""Fine-tuning of the whole network on all labels or on a few: backbone and new head, each at its own learning rate.

Source of the shape: facebookresearch/swav eval_semisup.py (random crops, BatchNorm trained and synchronised, SGD). The
networks after the last epoch count; nothing is chosen, so nothing is chosen on val.
"""

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from cgh_bench.core.config import fingerprint
from cgh_bench.core.descent import Cosine, Schedule, Steps
from cgh_bench.core.errors import UserError
from cgh_bench.core.precision import arithmetic
from cgh_bench.data.image_set import share_of_classes
from cgh_bench.data.transform import AS_IS, IMAGENET_CROP, IMAGENET_LINEAR, Crop, EvalTransform
from cgh_bench.frozen.selection import Rows, require_learnable
from cgh_bench.tasks.base import TOP5, Folders, ImageTask, Metric

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair, ImageSet

SWAV_STEPS = Steps((12, 16), 0.2)
FORWARDS_PER_STEP = 3
"""What a step costs, backward pass included, as a multiple of the forward pass: a rule of thumb for the plan."""


@dataclass(frozen=True)
class FineTune(ImageTask):
    """Classify each val image by a network fine-tuned on labelled train images."""

    METRICS: ClassVar = (Metric("top1"), TOP5, Metric("top1_selected_on_val"))

    labelled: float = 1.0
    """The share of every class's train images that is used, drawn by the seed (datasets such as `imagenet1k_10pct` are
    published lists: all of them are)."""
    crop: Crop = IMAGENET_CROP
    transform: EvalTransform = IMAGENET_LINEAR
    trunk_rate: float = 0.01
    head_rate: float = 0.2
    schedule: Schedule = SWAV_STEPS
    momentum: float = 0.9
    weight_decay: float = 0.0
    epochs: int = 20
    batch_size: int = 256
    """Images of a step, all processes together."""

    def __post_init__(self) -> None:
        if min(self.trunk_rate, self.head_rate, self.weight_decay) < 0 or not 0 <= self.momentum < 1:
            raise UserError(
                f"trunk_rate {self.trunk_rate}, head_rate {self.head_rate} and weight_decay {self.weight_decay} must "
                f"be at least 0, and momentum {self.momentum} from 0 to below 1"
            )
        if min(self.epochs, self.batch_size) < 1:
            raise UserError(f"epochs {self.epochs} and batch_size {self.batch_size} must be at least 1")
        if not 0 < self.labelled <= 1:
            raise UserError(f"labelled={self.labelled:g} is not a share of the train images, above 0 and up to 1")

    def check(self, data: "DataPair") -> None:
        """Refuse what no classifier fits."""
        require_learnable(data.train, data.val)

    def plan(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders) -> list[str]:
        """How long the training takes, val after every epoch included, by the backbone's speed on a few images."""
        from cgh_bench.core import dist
        from cgh_bench.frozen.extraction import Work, measured
        from cgh_bench.frozen.training import planned

        rows = self._labelled(checkpoint, data.train, seed=0)
        targets = (checkpoint.architecture.targets("layer4"),)
        work = Work(checkpoint, data.train, self.transform, targets, self.precision)
        rate = measured(work).images_per_second * dist.world_size()
        passes = FORWARDS_PER_STEP * len(rows) + len(data.val)
        return [planned(len(rows), self.batch_size, self.epochs, passes, rate)]

    def _labelled(self, checkpoint: "Checkpoint", train: "ImageSet", seed: int) -> Rows:
        """Which of the train images are learned from."""
        from cgh_bench.frozen.finetuning import has_batch_norm

        rows = share_of_classes(train, self.labelled, seed)
        if min(self.batch_size, len(rows)) < 2 and has_batch_norm(checkpoint.architecture.skeleton):
            raise UserError(
                f"a step of one image ({len(rows)} images, batch_size {self.batch_size}), but BatchNorm needs at least "
                "two; set batch_size or labelled higher"
            )
        return rows

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the labelled images, the first head, the order and the crops.

        `top1` is after the last epoch, `top1_selected_on_val` after the best on val: what the literature often
        prints, and optimistic. Interrupted, it resumes after the last finished epoch.
        """
        import torch

        from cgh_bench.core import dist
        from cgh_bench.frozen.crops import Batches
        from cgh_bench.frozen.extraction import Work, require_usable
        from cgh_bench.frozen.finetuning import Judge, Network, Tuning
        from cgh_bench.frozen.training import Course, train
        from cgh_bench.outcomes.classification import classification

        images, val, state = data.train, data.val, folders.run / "state.pt"
        rows = self._labelled(checkpoint, images, seed)
        with dist.process_group() as device, arithmetic(self.precision, device):
            network = Network(checkpoint, len(images.classes), seed).to(device)
            groups = [
                {"params": network.backbone.parameters(), "first_rate": self.trunk_rate},
                {"params": network.head.parameters(), "first_rate": self.head_rate},
            ]
            descent = torch.optim.SGD(groups, lr=0.0, momentum=self.momentum, weight_decay=self.weight_decay)
            tuning = Tuning(network, descent, Judge(val, self.transform, self.batch_size), device)
            batches = Batches(images, rows, self.crop, self.batch_size, seed)
            if not state.exists():
                for some in (val, images):
                    require_usable(Work(checkpoint, some, self.transform, ()))
            identity = fingerprint([self, checkpoint.id, images.fingerprint, val.fingerprint, seed])
            title = f"fine-tuning {checkpoint.name}"
            course = Course(title, self.epochs, self.schedule, identity, state, device)
            history = train(tuning, batches, course)
            folders.write("epochs.json", json.dumps(history))
            predicted, ranks = tuning.answers()
            outcomes = classification(val, predicted.numpy(), ranks.numpy())
            folders.keep(outcomes)
        best = max(record["top1"] for record in history)
        declared = {metric.name for metric in self.METRICS}
        measured = {name: value for name, value in outcomes.metrics().items() if name in declared}
        return {**measured, "top1_selected_on_val": best}


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
    # Of a dataset of one's own, all layers, all labels: no source; SwAV's values for 10 % of ImageNet.
    "finetune": FineTune(),
    "animals_finetune": ANIMALS,
    "animals_finetune_10pct": replace(ANIMALS, labelled=0.1, epochs=30),
}
