"""Blocks that methods share: encoders, momentum encoders, aligned queues, the hypercolumn branch, BatchNorm."""

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from cgh_bench.backbones import Architecture
from cgh_bench.core import dist
from cgh_bench.core.descent import half_cosine
from cgh_bench.core.errors import UserError
from cgh_bench.networks.base import Backbone, hypercolumn

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T", Tensor, tuple[Tensor, ...])


class Encoder(nn.Module):
    """A backbone and a head on its global feature."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """The head's output (B, D) for images (B, 3, H, W)."""
        return self.head(self.backbone(images))


class MomentumEncoder(nn.Module):
    """A copy of a network that follows it as an exponential moving average and never has a gradient.

    Parameters are averaged; the running statistics of its BatchNorms come from its own passes in train mode.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """θ_t ← m θ_t + (1 - m) θ_s."""
        torch._foreach_lerp_(list(self.network.parameters()), list(student.parameters()), 1 - momentum)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """What the student would return, with the averaged parameters."""
        return self.network(images)


def rising(start: float, step: int, steps: int) -> float:
    """The momentum of the average after step number `step` (from 0) of `steps` in BYOL and DINO: from `start` to 1."""
    return 1 - (1 - start) * half_cosine(step / steps)


def encode_by_size(network: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """The output of `network` for each view; consecutive views of one size are one batch, which BatchNorm sees whole.

    Source: DINO's code (facebookresearch/dino, `MultiCropWrapper`).
    """
    outputs: list[Tensor] = []
    for _, group in groupby(views, key=lambda view: view.shape[-2:]):
        same_size = list(group)
        outputs += network(torch.cat(same_size)).chunk(len(same_size))
    return outputs


class AlignedQueues(nn.Module):
    """Queues of one length with one pointer: row j of each belongs to the same image as row j of every other.

    Each queue is (K, D), begins as random unit vectors and is overwritten first in, first out.
    """

    pointer: int

    def __init__(self, length: int, **widths: int) -> None:
        super().__init__()
        self.length, self.pointer, self.names = length, 0, tuple(widths)
        for name, width in widths.items():
            self.register_buffer(f"{name}_rows", F.normalize(torch.randn(length, width), dim=1))

    def __getitem__(self, name: str) -> Tensor:
        """The (K, D) rows of that queue; not a copy."""
        return self.get_buffer(f"{name}_rows")

    @torch.no_grad()
    def enqueue(self, **rows: Tensor) -> None:
        """Overwrite the oldest rows of all queues at once; each value is (B, D), row for row the same images."""
        (count,) = {len(values) for values in rows.values()}
        assert set(rows) == set(self.names) and count <= self.length
        before_end = min(count, self.length - self.pointer)
        for name, values in rows.items():
            self[name][self.pointer : self.pointer + before_end] = values[:before_end].to(self[name].dtype)
            self[name][: count - before_end] = values[before_end:].to(self[name].dtype)
        self.pointer = (self.pointer + count) % self.length

    def get_extra_state(self) -> int:
        """The pointer, which the state dict holds beside the rows."""
        return self.pointer

    def set_extra_state(self, state: Any) -> None:
        """Restore the pointer."""
        self.pointer = int(state)


class HypercolumnBranch(nn.Module):
    """The second context of CGH: stages stacked on the last one's grid, 1x1 convolution - BN - ReLU, mean, MLP.

    Source: Gao, Feng, Patras, WACV 2024 (arXiv 2308.13392); the convolution is as wide as the last stage.
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
        """Embeddings (B, out), not normalised, of stage maps (B, C, H, W)."""
        height, width = maps[self.stages[-1]].shape[-2:]
        if min(height, width) < 2:
            raise UserError(
                f"views too small for a hypercolumn: {self.stages[-1]} is {height}x{width}, at least 2x2 is needed; "
                "set views.augments.0.size and views.augments.1.size to 33 or more (9 with the cifar stem)"
            )
        return self.head(self.project(hypercolumn(maps, self.stages)).mean(dim=(2, 3)))


class TwoContexts(nn.Module):
    """CGH's student: a backbone with global head and hypercolumn branch; the teacher is a copy of it."""

    def __init__(
        self, architecture: Architecture, widths: Mapping[str, int], stages: tuple[str, ...], hidden: int
    ) -> None:
        super().__init__()
        self.contexts = tuple(widths)
        self.backbone = architecture.build()
        if "global" in widths:
            self.global_head = mlp(self.backbone.dim, hidden, widths["global"])
        if "hyper" in widths:
            channels = {name: stage.channels for name, stage in self.backbone.stages.items()}
            self.hyper_branch = HypercolumnBranch(channels, stages, hidden, widths["hyper"])

    def forward(self, images: Tensor, contexts: tuple[str, ...] = ()) -> tuple[Tensor, ...]:
        """Unit embeddings of images (B, 3, H, W): (B, D_g) in the global and (B, D_h) in the hypercolumn context.

        `contexts` selects some of the two; the default is all that the method has.
        """
        pooled, maps = self.backbone.global_and_pyramid(images)
        heads = {
            "global": lambda: self.global_head(pooled),
            "hyper": lambda: self.hyper_branch(maps),
        }
        return tuple(unit(heads[context]()) for context in contexts or self.contexts)


class PrototypeHead(nn.Module):
    """DINO's head: an MLP to a unit embedding, and its cosines with the classes' directions."""

    def __init__(self, inputs: int, hidden: int, bottleneck: int, classes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            *(nn.Linear(inputs, hidden), nn.GELU()),
            *(nn.Linear(hidden, hidden), nn.GELU()),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.directions = nn.Parameter(torch.empty(classes, bottleneck))
        nn.init.kaiming_uniform_(self.directions, a=5**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Cosines (B, C) with the classes, of features (B, D)."""
        embedding = F.normalize(self.mlp(features).float(), dim=1)
        return F.linear(embedding, F.normalize(self.directions.float(), dim=1)).float()


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear - ReLU - Linear, with biases, PyTorch's default initialisation (MoCo v2's projection head)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs))


def unit(embeddings: Tensor) -> Tensor:
    """`embeddings` (B, D) at length one, in float32 whatever the precision."""
    return F.normalize(embeddings.float(), dim=1)


class SplitBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm with statistics for each of `groups` consecutive parts of the batch, as on so many devices.

    Running statistics are the mean over the parts. Source: facebookresearch/moco, the CIFAR-10 demo.
    """

    groups: int

    def forward(self, input: Tensor) -> Tensor:
        """`input` (B, C, H, W), normalised; B must be divisible by `groups`."""
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
    """Give each of `groups` parts of the global batch, divided among the processes, BatchNorm statistics of its own.

    If this process has several parts, every BatchNorm2d becomes a SplitBatchNorm2d in place; names and values stay.
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
        UserError: the device is not a GPU, for which alone torch has such a BatchNorm.
    """
    if device.type != "cuda":
        raise UserError(
            "sync_bn needs GPUs; set sync_bn=false, or use one process, whose BatchNorm sees the whole batch"
        )
    synchronous: M = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return synchronous


def encode_globally(network: Callable[[Tensor], T], images: Tensor, shuffled_bn: bool) -> T:
    """`network(images)`, a tensor (B, …) or a tuple of them, for the images of all processes: (W·B, …), in order.

    With `shuffled_bn` the batch is permuted across processes and BN groups before, and back after: BatchNorm in the
    momentum encoder then sees other neighbours than in the student, which cannot recognise an image by the statistics
    of its neighbours (MoCo, arXiv 1911.05722, §3.3).
    """
    if not shuffled_bn:
        return tree_map(dist.gather, network(images))
    everything = dist.gather(images)
    order = dist.from_first(torch.randperm(len(everything)).to(images.device))
    shuffled = network(everything[order[dist.block(len(everything))]])
    back = order.argsort()
    outputs = tree_map(lambda output: dist.gather(output)[back], shuffled)
    return outputs


def check_batch(batch_size: int, bn_groups: int, queue_length: int) -> None:
    """Refuse a global batch that does not fit the BN groups or the queue, or BN groups that do not fit the processes.

    Raises:
        UserError: says which, and what would fit.
    """
    if batch_size > queue_length:
        raise UserError(
            f"batch_size {batch_size} is larger than the queue of {queue_length}; lower it or raise method.queue_length"
        )
    if batch_size % bn_groups:
        raise UserError(
            f"batch_size {batch_size} does not divide into {bn_groups} BN groups; use a multiple of {bn_groups} or "
            "set method.bn_groups"
        )
    if batch_size < 2 * bn_groups:
        raise UserError(
            f"batch_size {batch_size} leaves 1 image in each of {bn_groups} BN groups, but BatchNorm needs 2; "
            f"set batch_size={2 * bn_groups} or more, or a lower method.bn_groups"
        )
    processes = dist.world_size()
    if bn_groups > 1 and bn_groups % processes:
        raise UserError(
            f"{bn_groups} BN groups do not divide into {processes} processes; set method.bn_groups={processes}, "
            "so that each has its own statistics, or use a number of processes that divides them"
        )
