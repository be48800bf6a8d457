"""Many softmax classifiers on the same features, trained at once by SGD or LARS: one product forward, one backward."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core import dist
from cgh_bench.core.descent import Descent
from cgh_bench.core.device import Precision, arithmetic
from cgh_bench.frozen.crops import Batch
from cgh_bench.frozen.extraction import require_frozen
from cgh_bench.frozen.features import FeatureBank
from cgh_bench.frozen.metrics import true_ranks
from cgh_bench.frozen.probe import cross_entropy, with_ones
from cgh_bench.frozen.training import Record

ROWS_PER_PASS = 512
LARS_EPSILON = 1e-8


class Heads:
    """`G` linear classifiers of features (B, D) into C classes, each with its own learning rate and weight decay.

    Heads are independent: each ends where it would end alone, and one that diverges does not affect the others.

    Attributes:
        weights: (D + 1, G, C), the last row of each the bias; so laid out that all heads are one matrix.
        velocity: of the same shape.
        norm: of the features before them, by each batch's mean and variance, nothing learned; None: as they are.
    """

    def __init__(
        self, first: Tensor, rates: Tensor, decays: Tensor, descent: Descent, norm: nn.BatchNorm1d | None = None
    ) -> None:
        """All heads start as `first` (D + 1, C); `rates` and `decays` are (G,)."""
        self.norm = norm
        self.weights = first[:, None].repeat(1, len(rates), 1)
        self.velocity = torch.zeros_like(self.weights)
        self.rates, self.decays, self.descent = rates, decays, descent
        self.decaying = bool(decays.any())

    def logits(self, features: Tensor) -> Tensor:
        """(B, D) to (B, G, C), a norm by its running mean and variance."""
        return self._logits(features if self.norm is None else self.norm.eval()(features))

    def _logits(self, features: Tensor) -> Tensor:
        return (with_ones(features) @ self.weights.flatten(1)).view(len(features), *self.weights.shape[1:])

    def step(self, features: Tensor, labels: Tensor, factor: float) -> Tensor:
        """One step on a batch (B, D) with labels (B,) at `factor` times each head's rate; the losses (G,) before it."""
        features = features if self.norm is None else self.norm.train()(features)
        losses, residual = cross_entropy(self._logits(features), labels)
        residual /= len(labels)
        inputs, residual = with_ones(features).T, residual.flatten(1)
        decays, momentum = self.decays[:, None], self.descent.momentum
        if self.descent.trust is None:
            self.velocity.flatten(1).addmm_(inputs, residual, beta=momentum)
            if self.decaying:
                rows = slice(-1 if self.descent.spare_biases else None)
                self.velocity[rows].addcmul_(self.weights[rows], decays)
        else:
            gradient = (inputs @ residual).view_as(self.weights)
            for rows in (slice(-1), *([] if self.descent.spare_biases else [slice(-1, None)])):
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

    def answers(self, features: Tensor, labels: Tensor, head: int) -> tuple[Tensor, Tensor]:
        """The class (N,) that one head predicts for each row of (N, D), and the rank (N,) of the true one."""
        device, found = self.weights.device, []
        for start in range(0, len(features), ROWS_PER_PASS):
            part = slice(start, start + ROWS_PER_PASS)
            logits = self.logits(features[part].to(device))[:, head : head + 1]
            ranks = true_ranks(logits, labels[part].to(device))
            found.append((logits[:, 0].argmax(dim=1).cpu(), ranks[:, 0].cpu()))
        predicted, places = zip(*found, strict=True)
        return torch.cat(predicted), torch.cat(places)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that training changes."""
        norm = self.norm.state_dict() if self.norm else {}
        return {"weights": self.weights, "velocity": self.velocity} | {f"norm.{name}": t for name, t in norm.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore `state`."""
        self.weights.copy_(state["weights"])
        self.velocity.copy_(state["velocity"])
        if self.norm:
            prefix = "norm."
            self.norm.load_state_dict({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})


def first_weights(width: int, classes: int, deviation: float, seed: int) -> Tensor:
    """(D + 1, C): normal weights of this standard deviation, and biases of zero, in the last row."""
    weights = deviation * torch.randn(width + 1, classes, generator=torch.Generator().manual_seed(seed))
    weights[-1] = 0
    return weights


def adapted(parameter: Tensor, gradient: Tensor, decays: Tensor, trust: float) -> Tensor:
    """LARS: the gradient (R, G, C), decay added, at a length of `trust` times the parameter's for each of the G.

    Where a parameter or its gradient is zero, as biases are at first, the gradient is kept as it is.
    """
    size, slope = parameter.norm(dim=(0, 2))[:, None], gradient.norm(dim=(0, 2))[:, None]
    ratio = trust * size / (slope + decays * size + LARS_EPSILON)
    return torch.where((size > 0) & (slope > 0), (gradient + decays * parameter) * ratio, gradient)


class SgdProbe:
    """The frozen backbone and all heads on it.

    Attributes:
        heads: one for each of the features.
        banks: by name, the sets that heads are judged on: the features of each, in the order of the heads.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        features: Sequence[str],
        heads: Sequence[Heads],
        device: torch.device,
        precision: Precision = "fp32",
    ) -> None:
        self.checkpoint, self.names, self.heads, self.device = checkpoint, features, heads, device
        self.precision: Precision = precision
        self.backbone = checkpoint.backbone().to(device)
        self.targets = [checkpoint.architecture.targets(name) for name in features]
        self.banks: dict[str, list[FeatureBank]] = {}

    @torch.no_grad()
    def learn(self, batch: Batch, factor: float) -> float:
        """A step of all heads; the loss of the best of them. Every process sees the features of all."""
        labels = dist.gather(batch.labels)[: batch.total]
        with arithmetic(self.precision, self.device):
            found = self.backbone.pooled_all(self.checkpoint.preprocessing(batch.images), self.targets)
        losses = torch.cat(
            [
                heads.step(dist.gather(features.float())[: batch.total], labels, factor)
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

    @torch.no_grad()
    def answers(self, name: str, head: int) -> tuple[Tensor, Tensor]:
        """The class (N,) that one of all heads predicts for each image of a set, and the rank (N,) of the true one."""
        of_each = len(self.heads[0].rates)
        heads, features = self.heads[head // of_each], self.banks[name][head // of_each]
        parts = dist.gather_shares(heads.answers(*_share(features), head % of_each))
        predicted, ranks = zip(*parts, strict=True)
        return torch.cat(predicted), torch.cat(ranks)

    def require_frozen(self) -> None:
        """Prove that the backbone has not changed."""
        require_frozen(self.checkpoint, self.backbone)

    def state_dict(self) -> dict[str, Any]:
        """The state of the heads; the backbone never changes."""
        return {name: heads.state_dict() for name, heads in zip(self.names, self.heads, strict=True)}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore `state`."""
        for name, heads in zip(self.names, self.heads, strict=True):
            heads.load_state_dict(state[name])


def _share(bank: FeatureBank) -> tuple[Tensor, Tensor]:
    """Features (N, D) and labels (N,), of several processes each a part."""
    rows = dist.share(len(bank.labels))
    return torch.tensor(bank.features[rows]), torch.tensor(bank.labels[rows])
