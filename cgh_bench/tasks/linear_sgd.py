"""Linear probe as papers train it: random crops through the frozen backbone, SGD, a whole grid of heads at once.

One forward pass of the backbone serves every learning rate, weight decay and feature: the heads are one matrix. On val
and on the held-out images that the choice is made on, they see features of the untouched image, extracted once, since
the backbone is frozen; that it was is checked at the end.
"""

import json
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cgh_bench.core.config import fingerprint, later
from cgh_bench.core.descent import BY_STEP, SGD, Cosine, Descent, Schedule, Steps
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair, ImageSet, subset
from cgh_bench.data.transform import AS_IS, IMAGENET_CROP, IMAGENET_KNN, IMAGENET_LINEAR, Crop, EvalTransform
from cgh_bench.frozen.selection import Rows, hold_out, require_learnable
from cgh_bench.tasks.base import TOP5, Folders, ImageTask, Metric

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cgh_bench.checkpoint import Checkpoint


@dataclass(frozen=True)
class LinearSgd(ImageTask):
    """Classify each val image by a linear classifier trained with SGD on random crops."""

    METRICS: ClassVar = (Metric("top1"), TOP5, Metric("top1_selected_on_val"))

    transform: EvalTransform = IMAGENET_LINEAR
    crop: Crop = IMAGENET_CROP
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
    steps: int = later(0)
    """Steps of an epoch, which need not be a pass over the images; 0: it is."""
    norm: float | None = later(None)
    """The epsilon of a BatchNorm without learned scale and shift before the heads."""

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
        for name in ("initial", "steps", "norm"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise UserError(f"{name} {value} must not be below 0")
        if len(self.grid) > 1 and not self.held_out:
            raise UserError(f"a grid of {len(self.grid)} heads needs images to choose on; set held_out=0.01 or so")

    @property
    def grid(self) -> list[tuple[str, float, float]]:
        """Feature, learning rate and weight decay of every head."""
        return list(product(self.features, self.learning_rates, self.weight_decays))

    def check(self, data: DataPair) -> None:
        """Refuse what no classifier fits, or too few images to hold some out."""
        require_learnable(data.train, data.val)
        self._split(data.train, seed=0)

    def plan(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders) -> list[str]:
        """What the heads take, and how long their training, by the backbone's speed on a few images."""
        from cgh_bench.core import dist
        from cgh_bench.frozen import features
        from cgh_bench.frozen.extraction import Work, measured
        from cgh_bench.frozen.training import planned

        train = data.train
        targets = tuple(checkpoint.architecture.targets(name) for name in self.features)
        work = Work(checkpoint, train, self.transform, targets, self.precision)
        each = len(self.learning_rates) * len(self.weight_decays)
        heads = each * sum(self._widths(checkpoint)) * len(train.classes)
        rate = measured(work).images_per_second * dist.world_size()
        return [
            *features.plan(checkpoint, data.val, self.transform, self.features, folders.cache, self.precision),
            f"{len(self.grid)} heads, {3 * 4 * heads / 1e6:,.0f} MB of memory with momentum and gradient",
            planned(self.steps * self.batch_size or len(train), self.batch_size, self.epochs, len(train), rate),
        ]

    def _widths(self, checkpoint: "Checkpoint") -> list[int]:
        """How many numbers each of the features has."""
        architecture = checkpoint.architecture
        return [architecture.width(architecture.targets(name)) for name in self.features]

    def _split(self, images: ImageSet, seed: int) -> tuple[Rows, Rows | None]:
        """Which of the train images are fitted and held out, if any."""
        return hold_out(images, self.held_out, seed) if self.held_out else (np.arange(len(images)), None)

    def _norm(self, first: "Tensor", device: "torch.device") -> "torch.nn.BatchNorm1d | None":
        from torch import nn

        return None if self.norm is None else nn.BatchNorm1d(len(first) - 1, self.norm, affine=False).to(device)

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images, the first weights, the order and the crops.

        `top1` is of the head that is best on the held-out images after the last epoch. `top1_selected_on_val` is the
        best on val of all heads and epochs: what the literature often prints, and optimistic. `folders.run` gets all
        of them in `epochs.json`. Interrupted, it resumes after the last finished epoch.

        Raises:
            CheckFailed: the backbone has changed.
        """
        import torch

        from cgh_bench.core import dist
        from cgh_bench.frozen.crops import Batches
        from cgh_bench.frozen.extraction import Work, require_usable
        from cgh_bench.frozen.features import extract_all
        from cgh_bench.frozen.heads import Heads, SgdProbe, first_weights
        from cgh_bench.frozen.training import Course, train
        from cgh_bench.outcomes.classification import classification

        images, val = data.train, data.val
        fitted, held = self._split(images, seed)
        with dist.process_group() as device:
            judged = {"val": val} | ({} if held is None else {"held_out": subset(images, held, f"held out, {seed}")})
            rates, decays = torch.tensor(list(product(self.learning_rates, self.weight_decays)), device=device).T
            firsts = [first_weights(width, len(val.classes), self.initial, seed) for width in self._widths(checkpoint)]
            heads = [
                Heads(first.to(device), rates, decays, self.descent, self._norm(first, device)) for first in firsts
            ]
            probe = SgdProbe(checkpoint, self.features, heads, device, self.precision)
            cache = folders.cache / "features"
            probe.banks = {
                name: extract_all(checkpoint, some, self.transform, self.features, cache, self.precision)
                for name, some in judged.items()
            }
            state = folders.run / "state.pt"
            if not state.exists():
                require_usable(Work(checkpoint, images, self.transform, ()))
            batches = Batches(images, fitted, self.crop, self.batch_size, seed, self.steps)
            identity = fingerprint([self, checkpoint.id, images.fingerprint, val.fingerprint, seed])
            title = f"linear probe of {checkpoint.name}, {len(self.grid)} heads"
            course = Course(title, self.epochs, self.schedule, identity, state, device)
            history = train(probe, batches, course)
            probe.require_frozen()
            folders.write("epochs.json", json.dumps({"heads": self.grid, "epochs": history}))
            last = history[-1]
            chosen = int(np.argmax(last.get("held_out_top1", [0.0])))
            predicted, ranks = probe.answers("val", chosen)
            folders.keep(classification(val, predicted.numpy(), ranks.numpy()))
        return {
            "top1": last["val_top1"][chosen],
            **({"top5": last["val_top5"][chosen]} if len(val.classes) > 5 else {}),
            "top1_selected_on_val": max(max(record["val_top1"]) for record in history),
        }


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
    crop=Crop(interpolation="bicubic"),
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
        crop=Crop(interpolation="bicubic"),
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
