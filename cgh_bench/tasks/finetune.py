"""Fine-tuning of the whole network on all labels or on a few: trunk and new head each at a learning rate of its own.

Source of the shape: facebookresearch/swav eval_semisup.py (random crops, BatchNorm trained and synchronised, SGD). The
networks after the last epoch count; nothing is chosen, so nothing is chosen on val.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core import dist
from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import write_text
from cgh_bench.data import ImageSet
from cgh_bench.data.image_set import workers
from cgh_bench.data.transform import AS_IS, IMAGENET_LINEAR, EvalTransform
from cgh_bench.frozen.crops import IMAGENET_CROP, Batch, Batches, Crop
from cgh_bench.frozen.extraction import Work, images_per_second
from cgh_bench.frozen.features import load_pair, pair_fingerprint
from cgh_bench.frozen.heads import true_ranks
from cgh_bench.frozen.selection import Rows, require_learnable, share_of_classes
from cgh_bench.frozen.training import Cosine, Course, Record, Schedule, Steps, planned, train
from cgh_bench.tasks import Folders, Metric

SWAV_STEPS = Steps((12, 16), 0.2)
FORWARDS_PER_STEP = 3
"""What a step costs, backward pass included, as a multiple of the forward pass: a rule of thumb for the plan."""


@dataclass(frozen=True)
class FineTune:
    """Classify each val image by a network fine-tuned on labelled train images."""

    METRICS: ClassVar = (Metric("top1"), Metric("top5"), Metric("top1_selected_on_val"))

    data: str = ""
    labelled: float = 1.0
    """The share of every class's train images that is used, drawn by the seed (data sets such as `imagenet1k_10pct` are
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
                f"not be below 0, momentum {self.momentum} neither, but below 1"
            )
        if min(self.epochs, self.batch_size) < 1:
            raise UserError(f"epochs {self.epochs} and batch_size {self.batch_size} must be at least 1")

    def data_fingerprint(self, cache: Path) -> str:
        """Of train and val images together."""
        return pair_fingerprint(self.data)

    def plan(self, checkpoint: Checkpoint, folders: Folders) -> list[str]:
        """How long the training takes, val after every epoch included, by the trunk's speed on a few images."""
        images, val, rows = self._labelled(checkpoint, seed=0)
        work = Work(checkpoint, images, self.transform, (checkpoint.architecture.targets("layer4"),))
        rate = images_per_second(work) * dist.world_size()
        return [planned(len(rows), self.epochs, FORWARDS_PER_STEP * len(rows) + len(val), rate)]

    def _labelled(self, checkpoint: Checkpoint, seed: int) -> tuple[ImageSet, ImageSet, Rows]:
        """Train, val, and which of train is learned from; refused is what cannot be."""
        images, val = load_pair(self.data)
        require_learnable(images, val)
        rows = share_of_classes(images, self.labelled, seed)
        if min(self.batch_size, len(rows)) < 2 and _has_batch_norm(checkpoint.backbone(copy=False)):
            raise UserError(f"a step of one image (of {len(rows)}, by {self.batch_size}); BatchNorm needs two at least")
        return images, val, rows

    def run(self, checkpoint: Checkpoint, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the labelled images, the first head, the order and the crops.

        `top1` is after the last epoch, `top1_selected_on_val` after the best on val: what the literature often
        prints, and optimistic. Interrupted, it goes on after the last finished epoch.
        """
        images, val, rows = self._labelled(checkpoint, seed)
        with dist.process_group() as device:
            tuning = _Tuning(self, checkpoint, val, seed, device)
            batches = Batches(images, rows, self.crop, self.batch_size, seed)
            identity = fingerprint([self, checkpoint.id, images.fingerprint, val.fingerprint, seed])
            title = f"fine-tuning {checkpoint.name}"
            history = train(tuning, batches, Course(title, self.epochs, identity, folders.run / "state.pt", device))
            if dist.rank() == 0:
                write_text(folders.run / "epochs.json", json.dumps(history))
        best = max(record["top1"] for record in history)
        return {"top1": history[-1]["top1"], "top5": history[-1]["top5"], "top1_selected_on_val": best}


class _Network(nn.Module):
    """Preprocessing, trunk, and a linear head of torch's usual initialisation."""

    def __init__(self, checkpoint: Checkpoint, classes: int) -> None:
        super().__init__()
        self.preprocessing, self.trunk = checkpoint.preprocessing, checkpoint.backbone()
        self.head = nn.Linear(self.trunk.dim, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to logits (B, C)."""
        logits: Tensor = self.head(self.trunk(self.preprocessing(pixels)))
        return logits


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


class _Tuning:
    """The network and its optimiser."""

    def __init__(self, task: FineTune, checkpoint: Checkpoint, val: ImageSet, seed: int, device: torch.device) -> None:
        self.task, self.val, self.device = task, val, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _Network(checkpoint, len(val.classes))
        self.parallel: nn.Module = self.network.to(device)
        if dist.world_size() > 1:
            self.parallel = self._on_several()
        groups = [
            {"params": self.network.trunk.parameters(), "first_rate": task.trunk_rate},
            {"params": self.network.head.parameters(), "first_rate": task.head_rate},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=0.0, momentum=task.momentum, weight_decay=task.weight_decay)

    def _on_several(self) -> nn.Module:
        """The same network on every process, trained as one process would on the whole batch."""
        if self.device.type == "cuda":
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
            return DistributedDataParallel(self.network, device_ids=[self.device.index])
        if _has_batch_norm(self.network):
            raise UserError(
                "fine-tuning on several processes synchronises BatchNorm, which needs a GPU each; run one process "
                "(trunks without BatchNorm, like ViTs, can have several)"
            )
        return DistributedDataParallel(self.network)

    def learn(self, batch: Batch, epoch: float) -> float:
        """A step; the loss of this process's part."""
        self.parallel.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["first_rate"] * self.task.schedule.at(epoch, self.task.epochs)
        loss = self._loss(self.parallel(batch.images), batch)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.item()

    @staticmethod
    def _loss(logits: Tensor, batch: Batch) -> Tensor:
        """One process's part of the batch's mean cross-entropy; the mean over the processes is that of all images.

        Images that only make the parts equally large, at the end of the last ones, do not count.
        """
        own = max(0, min(len(logits), batch.total - dist.rank() * len(logits)))
        total = cross_entropy(logits[:own], batch.labels[:own], reduction="sum")
        return total * (dist.world_size() / batch.total)

    @torch.no_grad()
    def assess(self) -> Record:
        """Top-1 and top-5 on val, in percent; each process looks at its part of the images."""
        self.network.eval()
        loader = DataLoader(_Plain(self.val, self.task.transform), self.task.batch_size, num_workers=workers(self.val))
        hits = torch.zeros(2, dtype=torch.float64, device=self.device)
        for pixels, labels in loader:
            ranks = true_ranks(self.network(pixels.to(self.device))[:, None], labels.to(self.device))
            hits += torch.stack([(ranks < 1).sum(), (ranks < 5).sum()])
        percent = 100 * dist.world_size() * dist.mean(hits) / len(self.val)
        return {"top1": float(percent[0]), "top5": float(percent[1])}

    def state_dict(self) -> dict[str, Any]:
        """Of the network and the optimiser."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Be where `state` was taken."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


class _Plain(Dataset[tuple[Tensor, int]]):
    """The val images as they are evaluated, of several processes each a part."""

    def __init__(self, images: ImageSet, transform: EvalTransform) -> None:
        self.images, self.transform = images, transform
        part = dist.share(len(images))
        self.rows = range(part.start, part.stop)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = self.rows[index]
        return self.transform(self.images.image(row)), int(self.images.labels[row])


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
    # Of a data set of one's own, all layers, all labels: no source; SwAV's values for 10 % of ImageNet.
    "finetune": FineTune(),
    "animals_finetune": ANIMALS,
    "animals_finetune_10pct": replace(ANIMALS, labelled=0.1, epochs=30),
}
