"""Fine-tuning of a vision transformer with strong regularisation, by timm's own network, augmentation and optimiser.

Source: facebookresearch/mae@efb2a80 main_finetune.py, engine_finetune.py, models_vit.py and util/lr_decay.py;
microsoft/unilm beit/run_class_finetuning.py, modeling_finetune.py and optim_factory.py have the same parts.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms.v2.functional import to_pil_image

from cgh_bench.backbones.timm import Timm
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core import dist
from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import Crop, to_unit
from cgh_bench.frozen.crops import Batch, drawn_by
from cgh_bench.frozen.finetuning import Tuning
from cgh_bench.frozen.judge import Judge
from cgh_bench.networks.wrapped import Transformer

STEP = 5
"""A stream of random numbers of its own under the seed."""
HEAD_DEVIATION = 2e-5
"""The standard deviation of the head's first weights: MAE's, and BEiT's .02 times its scale of .001."""
UNDECAYED = ("cls_token", "pos_embed")
"""Beside all vectors."""
NEW = {"head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias"}
NORM = {"norm.weight", "norm.bias"}


@contextmanager
def _all_drawn_by(seed: int) -> Iterator[None]:
    """Within, Python's and NumPy's random numbers, which timm draws from, depend on `seed` alone."""
    kept = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])


def _posterized(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """The upper `bits` of each pixel: timm's own, but 0 leave black, as with older Pillows, where newer ones refuse."""
    return ImageOps.posterize(image, min(bits, 8)) if bits > 0 else Image.new(image.mode, image.size)


@dataclass(frozen=True)
class Augmented:
    """A random crop that a policy of timm's changes; see `crops.Cropping`."""

    crop: Crop
    policy: str
    """timm's `auto_augment`; empty: none."""
    mean: tuple[float, float, float]
    """The colour of what a policy uncovers, in [0, 1]."""

    @property
    def size(self) -> int:
        """Pixels of its side."""
        return self.crop.size

    @cached_property
    def _transform(self) -> Any:
        from timm.data.transforms_factory import create_transform

        transform = create_transform(
            self.size,
            is_training=True,
            scale=self.crop.area,
            hflip=self.crop.mirrored,
            color_jitter=0.0,
            auto_augment=self.policy or None,
            interpolation=self.crop.interpolation,
            mean=self.mean,
            use_prefetcher=True,  # pixels stay uint8; normalisation and erasing are for the batch
        )
        for step in transform.transforms:
            for operation in getattr(step, "ops", ()):
                if operation.name.startswith("Posterize"):
                    operation.aug_fn = _posterized
        return transform

    def __call__(self, image: Tensor) -> Tensor:
        """`image` (3, H, W) uint8 to (3, size, size) float32 in [0, 1], drawing from torch's global generator."""
        with _all_drawn_by(int(torch.randint(2**31, ()))):
            pixels: Tensor = self._transform(to_pil_image(image))
        return to_unit(pixels)


class VitNetwork(nn.Module):
    """timm's network of a checkpoint, with drop path, the mean of the patches, a norm of its own and a linear head.

    The final norm of the pretrained network is left out, as MAE and BEiT do: the new one stands behind the mean.

    Raises:
        UserError: the checkpoint is not of a vision transformer of timm's.
    """

    def __init__(self, checkpoint: Checkpoint, classes: int, drop_path: float, seed: int) -> None:
        super().__init__()
        self.preprocessing = checkpoint.preprocessing
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _network(checkpoint, num_classes=classes, drop_path_rate=drop_path, global_pool="avg")
            nn.init.trunc_normal_(self.network.head.weight, std=HEAD_DEVIATION)
            nn.init.zeros_(self.network.head.bias)
        first = self.network.state_dict()
        odd = (first.keys() - checkpoint.weights.keys() - NEW) | (checkpoint.weights.keys() - first.keys() - NORM)
        if odd:
            raise UserError(f"{checkpoint.name} has another form than timm's network with a head: {min(odd)}")
        self.network.load_state_dict(first | {key: w for key, w in checkpoint.weights.items() if key in first})

    def forward(self, images: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1], in training preprocessed already, to logits (B, C)."""
        return self.network(images if self.training else self.preprocessing(images))


def require_vit(checkpoint: Checkpoint) -> None:
    """Refuse what this fine-tuning is not for.

    Raises:
        UserError: the checkpoint is not of a vision transformer that timm builds.
    """
    architecture = checkpoint.architecture
    if not isinstance(architecture.skeleton, Transformer):
        raise UserError(f"{architecture.name} is not a vision transformer; take `finetune`, which takes any network")
    architecture.timm_arguments()


def _network(checkpoint: Checkpoint, **more: Any) -> Any:
    require_vit(checkpoint)
    given = checkpoint.architecture.timm_arguments()
    rest = tuple((name, value) for name, value in given.items() if name not in ("model_name", "global_pool", "fc_norm"))
    return Timm(given["model_name"], rest).network(**more)


class Mixing(NamedTuple):
    """How the images of a batch, and their labels, are changed."""

    mixup: float
    cutmix: float
    smoothing: float
    erased: float
    classes: int


def by_layer(network: VitNetwork, rate: float, layer_decay: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW, whose rate is that of the head times `layer_decay` for each layer before it."""
    from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

    groups = param_groups_layer_decay(
        network.network, weight_decay, no_weight_decay_list=UNDECAYED, layer_decay=layer_decay
    )
    for group in groups:
        group["first_rate"] = rate * group["lr_scale"]
    return torch.optim.AdamW(groups, lr=0.0)


class VitTuning(Tuning):
    """On erased, mixed images with soft labels; what is random in a step the seed, the step and the process draw."""

    network: VitNetwork

    def __init__(
        self,
        network: VitNetwork,
        optimizer: torch.optim.Optimizer,
        judge: Judge,
        device: torch.device,
        mixing: Mixing,
        seed: int,
    ) -> None:
        from timm.data.mixup import Mixup
        from timm.data.random_erasing import RandomErasing

        super().__init__(network, optimizer, judge, device)
        self.seed, self.step, self.smoothing = seed, 0, mixing.smoothing
        alphas, softening = mixing[:2], {"label_smoothing": mixing.smoothing, "num_classes": mixing.classes}
        erasing: Any = RandomErasing
        mixup: Any = Mixup
        self.erase = erasing(mixing.erased, mode="pixel", max_count=1, device=str(device))
        self.mix = mixup(*alphas, **softening) if any(alphas) else None

    def loss(self, batch: Batch) -> Tensor:
        """See `Tuning`; all parts are equally large."""
        numbers = self.seed, STEP, self.step, dist.rank()
        with drawn_by(*numbers), _all_drawn_by(int(torch.randint(2**31, ()))):
            images = self.erase(self.network.preprocessing(batch.images))
            if self.mix is None:
                loss = cross_entropy(self.parallel(images), batch.labels, label_smoothing=self.smoothing)
            else:
                images, targets = self.mix(images, batch.labels)
                loss = cross_entropy(self.parallel(images), targets)
        self.step += 1
        return loss

    def state_dict(self) -> dict[str, Any]:
        """See `Tuning`; and the step."""
        return {**super().state_dict(), "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """See `Tuning`."""
        super().load_state_dict(state)
        self.step = state["step"]
