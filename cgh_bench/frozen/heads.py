"""Many softmax classifiers on the same features, trained at once by SGD or LARS: one product forward, one backward."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cgh_bench.core.errors import UserError
from cgh_bench.frozen.probe import cross_entropy, with_ones

ROWS_PER_PASS = 512
LARS_EPSILON = 1e-8


@dataclass(frozen=True)
class Descent:
    """SGD with momentum, as `torch.optim.SGD` defines it; the weight decay takes the biases too."""

    momentum: float = 0.9
    trust: float | None = None
    """A number makes it LARS: before momentum, the gradient of a head's weights, and that of its biases, is rescaled to
    `trust` times their norm (apex's LARC without clipping, https://arxiv.org/abs/1708.03888 eq. 6)."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or (self.trust is not None and self.trust <= 0):
            raise UserError(
                f"momentum {self.momentum} must be at least 0 and below 1, trust {self.trust} above 0 or none"
            )


SGD = Descent()


class Heads:
    """`G` linear classifiers of features (B, D) into C classes, each with its own learning rate and weight decay.

    None knows of the others: whatever is trained beside it, a head ends where it would end alone, and one that
    diverges does so alone.

    Attributes:
        weights: (D + 1, G, C), the last row of each the bias; so laid out that all heads are one matrix.
        velocity: of the same shape.
    """

    def __init__(self, first: Tensor, rates: Tensor, decays: Tensor, descent: Descent) -> None:
        """All heads start as `first` (D + 1, C); `rates` and `decays` are (G,)."""
        self.weights = first[:, None].repeat(1, len(rates), 1)
        self.velocity = torch.zeros_like(self.weights)
        self.rates, self.decays, self.descent = rates, decays, descent
        self.decaying = bool(decays.any())

    def logits(self, features: Tensor) -> Tensor:
        """(B, D) to (B, G, C)."""
        return (with_ones(features) @ self.weights.flatten(1)).view(len(features), *self.weights.shape[1:])

    def step(self, features: Tensor, labels: Tensor, factor: float) -> Tensor:
        """One step on a batch (B, D) with labels (B,) at `factor` times each head's rate; the losses (G,) before it."""
        losses, residual = cross_entropy(self.logits(features), labels)
        residual /= len(labels)
        inputs, residual = with_ones(features).T, residual.flatten(1)
        decays, momentum = self.decays[:, None], self.descent.momentum
        if self.descent.trust is None:
            self.velocity.flatten(1).addmm_(inputs, residual, beta=momentum)
            if self.decaying:
                self.velocity.addcmul_(self.weights, decays)
        else:
            gradient = (inputs @ residual).view_as(self.weights)
            for rows in (slice(-1), slice(-1, None)):
                gradient[rows] = adapted(self.weights[rows], gradient[rows], decays, self.descent.trust)
            self.velocity.mul_(momentum).add_(gradient)
        self.weights.addcmul_(self.velocity, self.rates[:, None] * -factor)
        return losses / len(labels)

    def hits(self, features: Tensor, labels: Tensor, ranks: tuple[int, ...]) -> Tensor:
        """For how many rows of (N, D) the true class is among each head's best r, for each r of `ranks`: (R, G)."""
        device = self.weights.device
        found = torch.zeros(len(ranks), len(self.rates), dtype=torch.int64, device=device)
        for start in range(0, len(features), ROWS_PER_PASS):
            part = slice(start, start + ROWS_PER_PASS)
            places = true_ranks(self.logits(features[part].to(device)), labels[part].to(device))
            found += torch.stack([(places < rank).sum(dim=0) for rank in ranks])
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """All that changes."""
        return {"weights": self.weights, "velocity": self.velocity}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Be where `state` was taken."""
        self.weights.copy_(state["weights"])
        self.velocity.copy_(state["velocity"])


def adapted(parameter: Tensor, gradient: Tensor, decays: Tensor, trust: float) -> Tensor:
    """LARS: the gradient (R, G, C), decay added, at a length of `trust` times the parameter's for each of the G.

    Where a parameter or its gradient is zero, as biases are at first, the gradient is kept as it is.
    """
    size, slope = parameter.norm(dim=(0, 2))[:, None], gradient.norm(dim=(0, 2))[:, None]
    ratio = trust * size / (slope + decays * size + LARS_EPSILON)
    return torch.where((size > 0) & (slope > 0), (gradient + decays * parameter) * ratio, gradient)


def true_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes each head puts before the true one, (B, G); equal ones rank in the order of the classes.

    A head that has diverged (its score is not finite) puts all before it: NaN must not count as right.
    """
    truth = logits.gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1))
    earlier = torch.arange(logits.shape[2], device=logits.device) < labels[:, None, None]
    ranks = ((logits > truth) | ((logits == truth) & earlier)).sum(dim=2)
    return torch.where(torch.isfinite(truth[:, :, 0]), ranks, logits.shape[2])
