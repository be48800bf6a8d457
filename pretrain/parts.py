"""Blocks that methods share: aligned queues, momentum twin, heads, hypercolumn branch, shuffled and split BN."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cgh_bench.backbones import hypercolumn
from cgh_bench.core import dist
from cgh_bench.core.errors import UserError

M = TypeVar("M", bound=nn.Module)


class AlignedQueues(nn.Module):
    """Queues of one length and one pointer: row j of every one of them always belongs to the same image.

    Rows are stored (K, D), begin as random unit vectors and are overwritten first in, first out.
    """

    pointer: int

    def __init__(self, length: int, **widths: int) -> None:
        super().__init__()
        self.length, self.pointer, self.names = length, 0, tuple(widths)
        for name, width in widths.items():
            self.register_buffer(f"{name}_rows", F.normalize(torch.randn(length, width), dim=1))

    def __getitem__(self, name: str) -> Tensor:
        """The (K, D) rows of that queue, in place, not a copy."""
        rows: Tensor = self.get_buffer(f"{name}_rows")
        return rows

    @torch.no_grad()
    def enqueue(self, **rows: Tensor) -> None:
        """Overwrite the oldest rows of every queue at once; each value is (B, D), row for row the same images."""
        (count,) = {len(values) for values in rows.values()}
        assert set(rows) == set(self.names) and count <= self.length
        before_end = min(count, self.length - self.pointer)
        for name, values in rows.items():
            self[name][self.pointer : self.pointer + before_end] = values[:before_end].to(self[name].dtype)
            self[name][: count - before_end] = values[before_end:].to(self[name].dtype)
        self.pointer = (self.pointer + count) % self.length

    def get_extra_state(self) -> int:
        """The pointer goes into the state dict beside the rows."""
        return self.pointer

    def set_extra_state(self, state: Any) -> None:
        """Restore the pointer."""
        self.pointer = int(state)


class MomentumTwin(nn.Module):
    """A teacher: a copy of the student that follows it as an exponential moving average and never has a gradient.

    Parameters are averaged; BatchNorm's running statistics are the twin's own, from its own passes in train mode.
    """

    def __init__(self, student: nn.Module, momentum: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """θ_t ← m θ_t + (1 - m) θ_s."""
        mine: list[Tensor] = list(self.network.parameters())
        its: list[Tensor] = list(student.parameters())
        torch._foreach_mul_(mine, self.momentum)
        torch._foreach_add_(mine, its, alpha=1 - self.momentum)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """What the student would return, by the teacher's weights."""
        return self.network(images)


class HypercolumnBranch(nn.Module):
    """The second context of CGH: stages stacked on the last one's grid, 1x1 convolution - BN - ReLU, pool, MLP.

    Source: Gao, Feng, Patras, WACV 2024 (arXiv 2308.13392); the convolution's width is the trunk's.
    """

    def __init__(self, channels: Mapping[str, int], stages: tuple[str, ...], hidden: int, out: int) -> None:
        super().__init__()
        self.stages = stages
        width = channels[stages[-1]]
        self.project = nn.Sequential(
            nn.Conv2d(sum(channels[stage] for stage in stages), width, kernel_size=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.head = mlp(width, hidden, out)

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Stage maps (B, C, H, W) to embeddings (B, out), not normalised."""
        height, width = maps[self.stages[-1]].shape[-2:]
        if min(height, width) < 2:
            raise UserError(
                f"the views are too small for a hypercolumn: {self.stages[-1]} is {height}x{width}, 2x2 is needed; "
                "set views.augments.0.size and views.augments.1.size to 33 or more (9 with the cifar stem)"
            )
        embedding: Tensor = self.head(self.project(hypercolumn(maps, self.stages)).mean(dim=(2, 3)))
        return embedding


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear - ReLU - Linear, with biases, PyTorch's default initialisation (MoCo v2's projection head)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs))


class SplitBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics are of each of `groups` consecutive parts of the batch, as on so many devices.

    Running statistics are the mean over the parts. Source: facebookresearch/moco, the CIFAR-10 demo.
    """

    groups: int

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same; B must be divisible by `groups`."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        means = [self.running_mean.clone() for _ in range(self.groups)]
        variances = [self.running_var.clone() for _ in range(self.groups)]
        parts = [
            F.batch_norm(part, mean, variance, self.weight, self.bias, True, self.momentum, self.eps)
            for part, mean, variance in zip(input.chunk(self.groups), means, variances, strict=True)
        ]
        self.num_batches_tracked.add_(1)
        self.running_mean.copy_(torch.stack(means).mean(dim=0))
        self.running_var.copy_(torch.stack(variances).mean(dim=0))
        return torch.cat(parts)


def split_batchnorm(network: nn.Module, groups: int) -> None:
    """Let BatchNorm see each of `groups` parts of the batch of all processes by itself, of which each has its share.

    Every BatchNorm2d becomes a SplitBatchNorm2d in place, keeping names and values, if this process has several parts.
    """
    here = groups // dist.world_size()
    if here <= 1:
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SplitBatchNorm2d
            cast(SplitBatchNorm2d, module).groups = here


def synchronised(network: M, device: torch.device) -> M:
    """`network` with the statistics of every BatchNorm taken over all processes.

    Raises:
        UserError: on a device for which torch has no such BatchNorm.
    """
    if device.type != "cuda":
        raise UserError("sync_bn needs GPUs; set sync_bn=false, or use one process, whose BatchNorm sees everything")
    synchronous: M = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return synchronous


def of_all(network: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor, shuffled_bn: bool) -> tuple[Tensor, ...]:
    """`network` of the images of all processes: the rows (W·B, …) of the global batch.

    With `shuffled_bn` in an order that mixes processes and BN groups, then put back: so the teacher's BatchNorm sees
    other neighbours than the student's, and an image cannot be recognised by the company it keeps (MoCo, arXiv
    1911.05722, §3.3).
    """
    if not shuffled_bn:
        return tuple(dist.gather(output) for output in network(images))
    everything = dist.gather(images)
    order = dist.from_first(torch.randperm(len(everything)).to(images.device))
    outputs = network(everything[order[dist.block(len(everything))]])
    back = order.argsort()
    return tuple(dist.gather(output)[back] for output in outputs)


def check_batch(batch_size: int, bn_groups: int, queue_length: int) -> None:
    """Refuse a global batch that does not fit BN groups or queue, and BN groups that do not fit the processes.

    Raises:
        UserError: says which, and what would fit.
    """
    if batch_size > queue_length:
        raise UserError(
            f"batch_size {batch_size} is larger than the queue of {queue_length}; lower it or raise method.queue_length"
        )
    if batch_size % bn_groups:
        raise UserError(
            f"batch_size {batch_size} does not divide into {bn_groups} BN groups; take a multiple of {bn_groups} or "
            "set method.bn_groups"
        )
    processes = dist.world_size()
    if bn_groups > 1 and bn_groups % processes:
        raise UserError(
            f"{bn_groups} BN groups do not divide into {processes} processes; set method.bn_groups={processes}, "
            "with which each has statistics of its own, or take a number of processes that divides them"
        )
