"""Fine-tuning: a backbone with a new linear head, both trained."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core import dist, saved
from cgh_bench.core.errors import UserError
from cgh_bench.frozen.crops import Batch
from cgh_bench.frozen.judge import Judge
from cgh_bench.frozen.training import Record


class Network(nn.Module):
    """Preprocessing, backbone, and a linear head of torch's usual initialisation, drawn by `seed`."""

    def __init__(self, checkpoint: Checkpoint, classes: int, seed: int) -> None:
        super().__init__()
        self.preprocessing, self.backbone = checkpoint.preprocessing, checkpoint.backbone()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(self.backbone.dim, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to logits (B, C)."""
        return self.head(self.backbone(self.preprocessing(pixels)))


def has_batch_norm(network: nn.Module) -> bool:
    """Whether one of its layers is BatchNorm."""
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


class Tuning:
    """The network and its optimiser, whose groups have a `first_rate` each; the judge says how good it is."""

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, judge: Judge, device: torch.device
    ) -> None:
        self.network, self.optimizer, self.judge, self.device = network, optimizer, judge, device
        self.parallel: nn.Module = self._on_several() if dist.world_size() > 1 else network

    def _on_several(self) -> nn.Module:
        """The same network on every process, trained as one process would on the whole batch."""
        if self.device.type == "cuda":
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
            return DistributedDataParallel(self.network, device_ids=[self.device.index])
        if has_batch_norm(self.network):
            raise UserError(
                "fine-tuning on several processes synchronises BatchNorm, which needs a GPU each; run one process "
                "(backbones without BatchNorm, like ViTs, can have several)"
            )
        return DistributedDataParallel(self.network)

    def learn(self, batch: Batch, factor: float) -> float:
        """A step; the loss of this process's part."""
        self.parallel.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["first_rate"] * factor
        loss = self.loss(batch)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.item()

    def loss(self, batch: Batch) -> Tensor:
        """One process's part of the batch's mean cross-entropy; the mean over the processes is that of all images.

        Images that only make the parts equally large, at the end of the last ones, do not count.
        """
        logits = self.parallel(batch.images)
        own = max(0, min(len(logits), batch.total - dist.rank() * len(logits)))
        total = cross_entropy(logits[:own], batch.labels[:own], reduction="sum")
        return total * (dist.world_size() / batch.total)

    def assess(self) -> Record:
        """Top-1 and top-5 on val, in percent."""
        _, ranks = self.answers()
        return {f"top{limit}": 100 * float((ranks < limit).double().mean()) for limit in (1, 5)}

    def answers(self) -> tuple[Tensor, Tensor]:
        """The class (N,) that the network predicts for each val image, and the rank (N,) of the true one."""
        self.network.eval()
        predicted, ranks = self.judge.answers(lambda pixels: self.network(pixels)[:, None], self.device)
        return predicted[:, 0], ranks[:, 0]

    def state_dict(self) -> dict[str, Any]:
        """The state of the network and the optimiser."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore `state`."""
        self.network.load_state_dict(state["network"])
        saved.restore(self.optimizer, state["optimizer"])
