"""A run in memory, built from its seed or its last state, one step of it, and how much of a GPU's memory that takes."""

import contextlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from cgh_bench.core import dist, saved
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.augmentation import Cut, finish
from cgh_bench.pretrain.batches import Batch, Batches
from cgh_bench.pretrain.folder import RunFolder
from cgh_bench.pretrain.optimisation import optimizer, set_rate
from cgh_bench.pretrain.parts import synchronised
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Augment
from cgh_bench.pretrain.watching import OFF, Watching

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LogLine = dict[str, float]


@dataclass
class Run:
    """A run in memory: its networks, optimiser and place in the data."""

    recipe: Recipe
    folder: RunFolder
    device: torch.device
    batches: Batches
    method: Method
    parallel: nn.Module
    """The method, or the method inside DistributedDataParallel."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    watching: Watching
    step: int = 0
    """Finished steps."""
    seconds: float = 0.0
    """Spent training, over all sessions."""
    corrupt: dict[str, None] = field(default_factory=dict)
    """The error of each unreadable file that this process met in this session, in order."""

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction of the current one."""
        return self.step / self.batches.per_epoch

    def state(self) -> dict[str, Any]:
        """Everything that a later session needs; the order of the data and the views depend on the step alone."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step, self.seconds = state["step"], state["seconds"]
        self.method.load_state_dict(state["method"])
        saved.restore(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])


def begin(recipe: Recipe, folder: RunFolder, device: torch.device, batches: Batches, watching: Watching = OFF) -> Run:
    """Build everything from the seed, or from the folder's last state."""
    torch.manual_seed(recipe.seed)
    method = recipe.method.build(recipe.architecture).to(device).to(memory_format=torch.channels_last).train()
    if recipe.sync_bn and dist.world_size() > 1:
        method = synchronised(method, device)
    if recipe.compile:
        method.compile()
    parallel: nn.Module = method
    if dist.world_size() > 1 and recipe.epochs:
        # Queues are equal on all processes and BatchNorm statistics belong to each: nothing to broadcast.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch renames the argument; 2.6 has only the old name
            parallel = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    run = Run(recipe, folder, device, batches, method, parallel, optimizer(recipe, method), scaler, watching)
    with folder.restoring():
        if state := folder.load():
            run.restore(state)
    return run


def descend(run: Run, batch: Batch) -> Callable[[], LogLine]:
    """Start one optimiser step; what is returned waits for it and gives its log line.

    That raises a UserError if the loss is not finite; the networks in memory are spoilt then, and must not be saved.
    """
    epoch, parts = run.epoch, run.recipe.accumulate
    rate = set_rate(run.optimizer, run.recipe, epoch)
    run.method.begin_step(run.step, len(run.batches))
    run.optimizer.zero_grad()
    values: list[Tensor] = []
    names: list[str] = []
    whole = _views(run, batch)
    for part in range(parts):
        views = [view.chunk(parts)[part] for view in whole]
        unsynchronised = isinstance(run.parallel, nn.parallel.DistributedDataParallel) and part < parts - 1
        with run.parallel.no_sync() if unsynchronised else contextlib.nullcontext():  # type: ignore[operator]
            terms = _terms(run, views, batch.labels.chunk(parts)[part], epoch)
            torch.autograd.backward(run.scaler.scale(torch.stack(list(terms.values())).sum() / parts))
        names = list(terms)
        values.append(torch.stack(list(terms.values())).detach())
    if run.recipe.clip_gradient:
        run.scaler.unscale_(run.optimizer)
        for parameter in run.method.parameters():
            nn.utils.clip_grad_norm_(parameter, run.recipe.clip_gradient)
    for parameter in run.method.frozen(epoch):
        parameter.grad = None
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.step += 1
    step, epoch = run.step, run.epoch
    fetched = dist.fetch([dist.mean(torch.stack(values).mean(dim=0))])

    def line() -> LogLine:
        shown = dict(zip(names, fetched()[0].tolist(), strict=True))
        if not all(map(math.isfinite, shown.values())):
            listed = ", ".join(f"{term} {value:g}" for term, value in shown.items())
            raise UserError(
                f"the loss is not finite at step {step} ({listed}); the last checkpoint is intact: "
                "lower base_lr or raise the temperatures, and start again in another folder"
            )
        return {"step": step, "epoch": epoch, "loss": sum(shown.values()), **shown, "lr": rate}

    return line


def _views(run: Run, batch: Batch) -> list[Tensor]:
    """The batch's views on the device; what is only cut is finished there."""

    def made(augment: Augment, view: Tensor | Cut) -> Tensor:
        if isinstance(view, Cut):
            return finish(augment, view._replace(pixels=view.pixels.to(run.device, non_blocking=True)))
        return view.to(run.device, non_blocking=True)

    return [made(augment, view) for augment, view in zip(run.recipe.views.augments, batch.views, strict=True)]


def _terms(run: Run, views: list[Tensor], labels: Tensor, epoch: float) -> dict[str, Tensor]:
    """The method's losses for one part of a batch, in the recipe's precision."""
    inputs = [run.recipe.preprocessing(view).contiguous(memory_format=torch.channels_last) for view in views]
    low = AUTOCAST.get(run.recipe.precision)
    with torch.autocast(run.device.type, low, enabled=low is not None):
        terms: dict[str, Tensor] = run.parallel(inputs, epoch, labels.to(run.device, non_blocking=True))
    return terms


PER_WEIGHT = {"sgd": 1, "lars": 1, "adamw": 2}
"""Numbers that the optimiser keeps for each weight."""
ALLOWANCE = 1.15
"""Workspaces, fragments and what is in flight, over what is counted: on an H200, CGH's ResNet-50 at a batch of 256 held
25 GiB in float32 and 14 GiB in bf16, where 22.2 and 11.9 are counted."""


def planned_bytes(recipe: Recipe) -> int:
    """About what a process holds at most: networks, optimiser, views, and what backward needs of the activations.

    Counted on torch's `meta` device, where tensors have shapes and no content; in mixed precision half the activations.
    """
    plain = replace(recipe, compile=False, sync_bn=False)
    each = plain.images_per_pass // dist.world_size()
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        method: nn.Module = plain.method.build(plain.architecture).train()
        views = [torch.empty(each, 3, view.size, view.size) for view in plain.views.augments]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            terms = method(views, plain.epochs / 2, torch.empty(each, dtype=torch.int64))
    persistent = [*method.parameters(), *method.buffers(), *views]
    held = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in persistent}
    activations = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in held)
    del terms
    trained = sum(parameter.nbytes for parameter in method.parameters() if parameter.requires_grad)
    low = 2 if recipe.precision in AUTOCAST else 1
    counted = sum(held.values()) + activations // low + (1 + PER_WEIGHT[recipe.optimizer]) * trained
    return round(ALLOWANCE * counted)
