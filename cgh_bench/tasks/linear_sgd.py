"""Linear probe as papers train it: random crops through the frozen trunk, SGD, a whole grid of heads at once.

One forward pass of the trunk serves every learning rate, weight decay and feature: the heads are one matrix. What they
see of val, and of the held-out images that the choice is made on, is features of the untouched image: extracted once,
since the trunk is frozen, and proven so at the end.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core import dist
from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.core.files import write_text
from cgh_bench.data import ImageSet
from cgh_bench.data.subset import subset
from cgh_bench.data.transform import AS_IS, IMAGENET_LINEAR, EvalTransform
from cgh_bench.frozen.crops import IMAGENET_CROP, Batch, Batches, Crop
from cgh_bench.frozen.extraction import Work, images_per_second
from cgh_bench.frozen.features import FeatureBank, extract_all, load_pair, pair_fingerprint, plan
from cgh_bench.frozen.heads import SGD, Descent, Heads
from cgh_bench.frozen.selection import Rows, hold_out, require_learnable
from cgh_bench.frozen.training import BY_STEP, Cosine, Course, Record, Schedule, Steps, planned, train
from cgh_bench.tasks import Folders, Metric


@dataclass(frozen=True)
class LinearSgd:
    """Classify each val image by a linear classifier trained by SGD on random crops."""

    METRICS: ClassVar = (Metric("top1"), Metric("top5"), Metric("top1_selected_on_val"))

    data: str = ""
    crop: Crop = IMAGENET_CROP
    transform: EvalTransform = IMAGENET_LINEAR
    features: tuple[str, ...] = ("layer4",)
    learning_rates: tuple[float, ...] = (0.3,)
    """As they are, never rescaled by the batch size."""
    weight_decays: tuple[float, ...] = (0.0,)
    descent: Descent = SGD
    schedule: Schedule = BY_STEP
    epochs: int = 100
    batch_size: int = 256
    """Images of a step, all processes together."""
    held_out: float = 0.0
    """The fraction of every class's train images that the head is chosen on; 0 where there is but one."""
    initial: float = 0.01
    """Standard deviation of the first weights; the biases start at zero."""

    def __post_init__(self) -> None:
        if min(self.learning_rates, default=0) <= 0 or min(self.weight_decays, default=-1) < 0 or not self.features:
            raise UserError(
                f"learning_rates {self.learning_rates} must be above 0, weight_decays {self.weight_decays} not below, "
                "and there must be one of each and a feature"
            )
        if min(self.epochs, self.batch_size) < 1 or not 0 <= self.held_out < 1:
            raise UserError(
                f"epochs {self.epochs} and batch_size {self.batch_size} must be at least 1, "
                f"held_out {self.held_out} a fraction below 1"
            )
        if self.initial < 0:
            raise UserError(f"initial {self.initial} must not be below 0")
        if len(self.grid) > 1 and not self.held_out:
            raise UserError(f"a grid of {len(self.grid)} heads needs images to choose on; set held_out=0.01 or so")

    @property
    def grid(self) -> list[tuple[str, float, float]]:
        """Feature, learning rate and weight decay of every head."""
        return list(product(self.features, self.learning_rates, self.weight_decays))

    def data_fingerprint(self, cache: Path) -> str:
        """Of train and val images together."""
        return pair_fingerprint(self.data)

    def plan(self, checkpoint: Checkpoint, folders: Folders) -> list[str]:
        """What the heads take, and how long their training, by the trunk's speed on a few images."""
        train, val, _ = self._split(seed=0)
        targets = [checkpoint.architecture.targets(name) for name in self.features]
        work = Work(checkpoint, train, self.transform, tuple(targets))
        width = sum(checkpoint.backbone(copy=False).width(target) for target in targets)
        heads = len(self.learning_rates) * len(self.weight_decays) * width * len(train.classes)
        return [
            *plan(checkpoint, val, self.transform, self.features, folders.cache),
            f"{len(self.grid)} heads, {3 * 4 * heads / 1e6:,.0f} MB of memory with momentum and gradient",
            planned(len(train), self.epochs, len(train), images_per_second(work) * dist.world_size()),
        ]

    def _split(self, seed: int) -> tuple[ImageSet, ImageSet, tuple[Rows, Rows | None]]:
        """Train, val, and which of train is fitted and held out, if any; refused is what no classifier fits."""
        images, val = load_pair(self.data)
        require_learnable(images, val)
        return images, val, hold_out(images, self.held_out, seed) if self.held_out else (np.arange(len(images)), None)

    def run(self, checkpoint: Checkpoint, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images, the first weights, the order and the crops.

        `top1` is of the head that is best on the held-out images after the last epoch. `top1_selected_on_val` is the
        best on val of all heads and epochs: what the literature often prints, and optimistic. `folders.run` gets all
        of them in `epochs.json`. Interrupted, it goes on after the last finished epoch.

        Raises:
            CheckFailed: the trunk has changed.
        """
        images, val, (fitted, held) = self._split(seed)
        with dist.process_group() as device:
            judged = {"val": val} | ({} if held is None else {"held_out": subset(images, held, f"held out, {seed}")})
            probe = _Probe(self, checkpoint, len(images.classes), seed, device)
            probe.banks = {
                name: extract_all(checkpoint, some, self.transform, self.features, folders.cache / "features")
                for name, some in judged.items()
            }
            batches = Batches(images, fitted, self.crop, self.batch_size, seed)
            identity = fingerprint([self, checkpoint.id, images.fingerprint, val.fingerprint, seed])
            title = f"linear probe of {checkpoint.name}, {len(self.grid)} heads"
            history = train(probe, batches, Course(title, self.epochs, identity, folders.run / "state.pt", device))
            probe.require_frozen()
            if dist.rank() == 0:
                write_text(folders.run / "epochs.json", json.dumps({"heads": self.grid, "epochs": history}))
        last = history[-1]
        chosen = int(np.argmax(last.get("held_out_top1", [0.0])))
        return {
            "top1": last["val_top1"][chosen],
            "top5": last["val_top5"][chosen],
            "top1_selected_on_val": max(max(record["val_top1"]) for record in history),
        }


class _Probe:
    """The frozen trunk and all heads on it."""

    def __init__(self, task: LinearSgd, checkpoint: Checkpoint, classes: int, seed: int, device: torch.device) -> None:
        self.task, self.checkpoint, self.device = task, checkpoint, device
        self.trunk = checkpoint.backbone().to(device)
        self.targets = [checkpoint.architecture.targets(name) for name in task.features]
        self.banks: dict[str, list[FeatureBank]] = {}
        rates, decays = torch.tensor(list(product(task.learning_rates, task.weight_decays)), device=device).T
        self.heads = []
        for target in self.targets:
            generator = torch.Generator().manual_seed(seed)
            first = task.initial * torch.randn(self.trunk.width(target) + 1, classes, generator=generator)
            first[-1] = 0
            self.heads.append(Heads(first.to(device), rates, decays, task.descent))

    @torch.no_grad()
    def learn(self, batch: Batch, epoch: float) -> float:
        """A step of all heads; the loss of the best of them. Every process sees the features of all."""
        factor = self.task.schedule.at(epoch, self.task.epochs)
        labels = dist.gather(batch.labels)[: batch.total]
        found = self.trunk.pooled_all(self.checkpoint.preprocessing(batch.images), self.targets)
        losses = torch.cat(
            [
                heads.step(dist.gather(features)[: batch.total], labels, factor)
                for heads, features in zip(self.heads, found, strict=True)
            ]
        )
        return float(losses.nan_to_num(torch.inf).min())

    @torch.no_grad()
    def assess(self) -> Record:
        """Top-1 and top-5 of every head, in percent, on each set of images."""
        record: Record = {}
        for name, banks in self.banks.items():
            hits = torch.cat([h.hits(*_share(bank), (1, 5)) for h, bank in zip(self.heads, banks, strict=True)], dim=1)
            percent = 100 * dist.world_size() * dist.mean(hits.to(self.device, torch.float64)) / len(banks[0].labels)
            record |= {f"{name}_top1": percent[0].tolist(), f"{name}_top5": percent[1].tolist()}
        return record

    def require_frozen(self) -> None:
        """Prove by the hash of all its tensors, BatchNorm statistics among them, that the trunk is what was given."""
        weights = {key: tensor.cpu() for key, tensor in self.trunk.state_dict().items()}
        if replace(self.checkpoint, weights=weights).id != self.checkpoint.id:
            raise CheckFailed(f"{self.checkpoint.name} changed while the linear probe was trained; it must stay frozen")

    def state_dict(self) -> dict[str, Any]:
        """Of the heads; the trunk never changes."""
        return {name: heads.state_dict() for name, heads in zip(self.task.features, self.heads, strict=True)}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Be where `state` was taken."""
        for name, heads in zip(self.task.features, self.heads, strict=True):
            heads.load_state_dict(state[name])


def _share(bank: FeatureBank) -> tuple[Tensor, Tensor]:
    """Features (N, D) and labels (N,), of several processes each a part."""
    rows = dist.share(len(bank.labels))
    return torch.tensor(bank.features[rows]), torch.tensor(bank.labels[rows])


# facebookresearch/moco main_lincls.py.
MOCO = LinearSgd(data="imagenet1k", learning_rates=(30.0,), schedule=Steps((60, 80)))
# facebookresearch/swav eval_linear.py (but its pixel deviation of .228, a slip, is not taken over: preprocessing is the
# checkpoint's); facebookresearch/barlowtwins evaluate.py has the same values.
SWAV = replace(MOCO, learning_rates=(0.3,), weight_decays=(1e-6,), schedule=Cosine("epoch"))

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
    # facebookresearch/dinov2 dinov2/eval/linear.py: its 13 rates times 1024 / 256 (8 GPUs of 128), 12,500 steps. There
    # the features are ViT blocks, and the best head is chosen on val.
    "imagenet_linear_dinov2": replace(
        MOCO,
        features=("layer4", "layer3+layer4"),
        learning_rates=tuple(
            4 * rate for rate in (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1)
        ),
        schedule=BY_STEP,
        epochs=10,
        batch_size=1024,
        held_out=0.01,
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
