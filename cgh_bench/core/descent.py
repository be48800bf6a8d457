"""How a training descends, as configuration: learning-rate schedules, momentum, LARS."""

import math
from dataclasses import dataclass
from typing import Literal

from cgh_bench.core.errors import UserError


def half_cosine(done: float, total: float = 1.0) -> float:
    """From 1 at the start to 0 at the end, along half a cosine, when `done` of `total` is done."""
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
    """The learning rate falls to zero along half a cosine, at every step or only between epochs."""

    per: Literal["step", "epoch"] = "step"

    def at(self, epoch: float, epochs: int) -> float:
        """The share of the first rate at a fractional `epoch` of `epochs`."""
        return half_cosine(math.floor(epoch) if self.per == "epoch" else epoch, epochs)


Schedule = Steps | Cosine
BY_STEP = Cosine()


@dataclass(frozen=True)
class Descent:
    """SGD with momentum, as `torch.optim.SGD` defines it; the weight decay applies to the biases too."""

    momentum: float = 0.9
    trust: float | None = None
    """A number makes it LARS: before momentum, the gradient of a head's weights, and that of its biases, is rescaled to
    `trust` times their norm (apex's LARC without clipping, https://arxiv.org/abs/1708.03888 eq. 6)."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or (self.trust is not None and self.trust <= 0):
            raise UserError(f"momentum {self.momentum} must be in [0, 1), trust {self.trust} above 0 or none")


SGD = Descent()
