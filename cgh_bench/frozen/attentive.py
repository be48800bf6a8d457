"""Attentive probes: a learned query pools the tokens of a frozen backbone's map, and a linear layer classifies.

Source: facebookresearch/capi@98b4fa1 eval_classification.py.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgh_bench.core import dist, saved
from cgh_bench.frozen.crops import Batch
from cgh_bench.frozen.judge import Judge
from cgh_bench.frozen.patches import LiveMaps
from cgh_bench.frozen.training import Record

BETAS = (0.9, 0.95)


class AttentiveHead(nn.Module):
    """Multi-head attention of one query over tokens (B, N, D), then a linear layer: scores (B, C).

    It computes what attention by keys and values of every token does, in another order: a query meets a token at
    `token · Kᵀq`, and the values are taken of the pooled token. So a token costs D for each head, not D². The keys have
    no bias: softmax would not see it.
    """

    def __init__(self, width: int, classes: int, head_width: int, deviation: float, seed: int) -> None:
        super().__init__()
        self.shape = width // head_width, head_width
        self.query = nn.Parameter(torch.empty(width))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.linear = nn.Linear(width, classes)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.trunc_normal_(parameter, std=deviation, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) to scores (B, C)."""
        heads, width = self.shape
        keys, values = (layer.weight.view(heads, width, -1) for layer in (self.key, self.value))
        query = torch.einsum("hw,hwd->hd", self.query.view(heads, width), keys) / math.sqrt(width)
        shares = (tokens @ query.T).softmax(dim=1)
        pooled = shares.transpose(1, 2) @ tokens
        found = torch.einsum("bhd,hwd->bhw", pooled, values).flatten(1) + self.value.bias
        return self.linear(found)


class AttentiveProbe:
    """The frozen backbone and a head for each learning rate and weight decay, which AdamW trains on all their batches.

    Attributes:
        judges: by name, the sets of images that the heads are judged on.
    """

    def __init__(
        self, live: LiveMaps, first: AttentiveHead, grid: list[tuple[float, float]], judges: Mapping[str, Judge]
    ) -> None:
        """All heads start as `first`; `grid` has the rate and the weight decay of each."""
        self.live, self.judges = live, judges
        self.heads = nn.ModuleList(copy.deepcopy(first) for _ in grid).to(live.device)
        groups = []
        for head, (rate, decay) in zip(self.heads, grid, strict=True):
            biases = [parameter for name, parameter in head.named_parameters() if name.endswith("bias")]
            others = [parameter for name, parameter in head.named_parameters() if not name.endswith("bias")]
            groups += [
                {"params": biases, "first_rate": rate, "weight_decay": 0.0},
                {"params": others, "first_rate": rate, "weight_decay": decay},
            ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=BETAS)

    def learn(self, batch: Batch, factor: float) -> float:
        """A step of all heads; the loss of the best of them. Every process sees the tokens of all."""
        tokens = dist.gather(self.live.features(batch.images))[: batch.total]
        labels = dist.gather(batch.labels)[: batch.total]
        self.optimizer.zero_grad()
        losses = []
        for head in self.heads:
            loss = cross_entropy(head(tokens), labels)
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        for group in self.optimizer.param_groups:
            group["lr"] = group["first_rate"] * factor
        self.optimizer.step()
        return float(torch.stack(losses).nan_to_num(torch.inf).min())

    def assess(self) -> Record:
        """Top-1 and top-5 of every head, in percent, on each set of images."""
        record: Record = {}
        for name in self.judges:
            _, ranks = self._answers(name)
            for limit in (1, 5):
                record[f"{name}_top{limit}"] = (100 * (ranks < limit).double().mean(dim=0)).tolist()
        return record

    def answers(self, name: str, head: int) -> tuple[Tensor, Tensor]:
        """The class (N,) that one head predicts for each image of a set, and the rank (N,) of the true one."""
        predicted, ranks = self._answers(name)
        return predicted[:, head], ranks[:, head]

    def _answers(self, name: str) -> tuple[Tensor, Tensor]:
        """The classes (N, G) that all heads predict, and the ranks (N, G) of the true ones."""

        def scores(pixels: Tensor) -> Tensor:
            tokens = self.live.features(pixels)
            return torch.stack([head(tokens) for head in self.heads], dim=1)

        return self.judges[name].answers(scores, self.live.device)

    def require_frozen(self) -> None:
        """Prove that the backbone has not changed."""
        self.live.require_frozen()

    def state_dict(self) -> dict[str, Any]:
        """The state of heads and optimiser; the backbone never changes."""
        return {"heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore `state`."""
        self.heads.load_state_dict(state["heads"])
        saved.restore(self.optimizer, state["optimizer"])
