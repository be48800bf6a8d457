"""How a training descends, as configuration: learning-rate schedules, momentum, LARS, heads on maps."""

import math
from dataclasses import dataclass
from typing import Literal

from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError


def half_cosine(done: float, total: float = 1.0) -> float:
    """From 1 to 0 along half a cosine (Loshchilov and Hutter, arXiv 1608.03983), when `done` of `total` is done."""
    return 0.5 * (1 + math.cos(math.pi * done / total))


@dataclass(frozen=True)
class Steps:
    """The learning rate falls by `factor` when each of `milestones` (epochs) begins."""

    milestones: tuple[int, ...]
    factor: float = 0.1

    def at(self, epoch: float, epochs: int) -> float:
        """The share of the first rate at a fractional `epoch`."""
        return math.prod(self.factor for milestone in self.milestones if epoch >= milestone)


@dataclass(frozen=True)
class Cosine:
    """The learning rate falls along half a cosine, at every step or only between epochs."""

    per: Literal["step", "epoch"] = "step"
    warmup: int = later(0)
    """Epochs in which it rises to its full height before, in a straight line."""
    last: float = later(0.0)
    """The share of the full rate that it falls to."""

    def at(self, epoch: float, epochs: int) -> float:
        """The share of the full rate at a fractional `epoch` of `epochs`."""
        now = math.floor(epoch) if self.per == "epoch" else epoch
        if now < self.warmup:
            return now / self.warmup
        return self.last + (1 - self.last) * half_cosine(now - self.warmup, epochs - self.warmup)


Schedule = Steps | Cosine
BY_STEP = Cosine()


@dataclass(frozen=True)
class Descent:
    """SGD with momentum, as `torch.optim.SGD` defines it; the weight decay applies to the biases too."""

    momentum: float = 0.9
    trust: float | None = None
    """A number makes it LARS: before momentum, the gradient of a head's weights, and that of its biases, is rescaled to
    `trust` times their norm (apex's LARC without clipping, https://arxiv.org/abs/1708.03888 eq. 6)."""
    spare_biases: bool = later(False)
    """Biases are neither rescaled by LARS nor decayed (facebookresearch/mae util/lars.py, from MoCo v3)."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or (self.trust is not None and self.trust <= 0):
            raise UserError(f"momentum {self.momentum} must be in [0, 1), trust {self.trust} above 0 or none")


SGD = Descent()


@dataclass(frozen=True)
class HeadTraining:
    """How a head on the maps of a frozen backbone is trained, by AdamW; it is its own schedule."""

    rate: float
    """As it is, never rescaled by the batch size."""
    iterations: int
    batch_size: int = 16
    """Images of a step, all processes together."""
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.0
    """The weight decay of all parameters."""
    warmup: int = 0
    """Iterations in which the rate rises in a straight line."""
    first: float = 1e-6
    """The share of the rate that it rises from."""
    fall: Literal["cosine", "linear"] = "cosine"
    last: float = 0.0
    """The share of the rate that it falls to."""
    clip: float | None = None
    """The largest norm of the gradient; none: any."""
    dropout: float = 0.0
    """The share of the features' channels that is left out in training."""

    def __post_init__(self) -> None:
        if self.rate <= 0 or min(self.iterations, self.batch_size) < 1 or not 0 <= self.dropout < 1:
            raise UserError(
                f"rate {self.rate:g} must be above 0, iterations {self.iterations} and batch_size {self.batch_size} "
                f"at least 1, dropout {self.dropout:g} a share below 1"
            )
        if not 0 <= self.warmup < self.iterations:
            raise UserError(f"warmup {self.warmup} must be at least 0 and less than the {self.iterations} iterations")

    def at(self, epoch: float, epochs: int) -> float:
        """The share of the rate at a fractional `epoch` of `epochs`, into which the iterations are divided."""
        done, rising = epoch / epochs, self.warmup / self.iterations
        if done < rising:
            return self.first + (1 - self.first) * done / rising
        fallen = (done - rising) / (1 - rising)
        return self.last + (1 - self.last) * (half_cosine(fallen) if self.fall == "cosine" else 1 - fallen)
