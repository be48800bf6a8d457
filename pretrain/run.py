"""A run: its networks, optimiser and place in the data, built from seed or state; and one step of descent."""

import contextlib
import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cgh_bench.core import dist
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.batches import Batch, Batches
from cgh_bench.pretrain.folder import RunFolder
from cgh_bench.pretrain.parts import synchronised
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.schedule import optimizer, set_rate
from cgh_bench.pretrain.watching import SILENT, Watching

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Run:
    """What changes while training."""

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
    """Spent training, all sessions together."""
    corrupt: dict[str, None] = field(default_factory=dict)
    """What was wrong with each unreadable file that this process met in this session, in order."""

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction of the current one."""
        return self.step / self.batches.per_epoch

    def state(self) -> dict[str, Any]:
        """All that a later session needs; data order and views need only the step."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be where `state` was taken."""
        self.step, self.seconds = state["step"], state["seconds"]
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])


def begin(
    recipe: Recipe, folder: RunFolder, device: torch.device, batches: Batches, watching: Watching = SILENT
) -> Run:
    """Build everything from the seed, or from the folder's last state."""
    torch.manual_seed(recipe.seed)
    method = recipe.method.build(recipe.architecture).to(device).to(memory_format=torch.channels_last).train()
    if recipe.sync_bn and dist.world_size() > 1:
        method = synchronised(method, device)
    if recipe.compile:
        method.compile()
    parallel: nn.Module = method
    if dist.world_size() > 1 and recipe.epochs:
        # The queues are equal on all processes and BatchNorm statistics are each one's own: nothing to broadcast.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch renames it; 2.6 does not know the other name
            parallel = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    run = Run(recipe, folder, device, batches, method, parallel, optimizer(recipe, method), scaler, watching)
    state = folder.load()
    if state:
        run.restore(state)
    return run


def descend(run: Run, batch: Batch) -> dict[str, float]:
    """One step of descent; gives its log line.

    Raises:
        UserError: the loss is not finite; nothing was changed by this step but queues and teacher, nothing is saved.
    """
    epoch, parts = run.epoch, run.recipe.accumulate
    rate = set_rate(run.optimizer, run.recipe, epoch)
    run.method.begin_step(epoch / run.recipe.epochs)
    run.optimizer.zero_grad()
    values: list[Tensor] = []
    names: list[str] = []
    for part in range(parts):
        views = [view.chunk(parts)[part] for view in batch.views]
        alone = isinstance(run.parallel, nn.parallel.DistributedDataParallel) and part < parts - 1
        with run.parallel.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
            terms = _terms(run, views, batch.labels.chunk(parts)[part], epoch)
            torch.autograd.backward(run.scaler.scale(torch.stack(list(terms.values())).sum() / parts))
        names = list(terms)
        values.append(torch.stack(list(terms.values())).detach())
    shown = dict(zip(names, dist.mean(torch.stack(values).mean(dim=0)).tolist(), strict=True))
    if not all(map(math.isfinite, shown.values())):
        listed = ", ".join(f"{term} {value:g}" for term, value in shown.items())
        raise UserError(
            f"the loss is not finite at step {run.step + 1} ({listed}); the last checkpoint is intact: "
            "lower base_lr or raise the temperatures, and start anew in another folder"
        )
    if run.recipe.clip_gradient:
        run.scaler.unscale_(run.optimizer)
        for parameter in run.method.parameters():
            nn.utils.clip_grad_norm_(parameter, run.recipe.clip_gradient)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.step += 1
    return {"step": run.step, "epoch": run.epoch, "loss": sum(shown.values()), **shown, "lr": rate}


def _terms(run: Run, views: list[Tensor], labels: Tensor, epoch: float) -> dict[str, Tensor]:
    """The method's losses of one part of a batch, in the recipe's precision."""
    inputs = [
        run.recipe.preprocessing(view.to(run.device, non_blocking=True)).contiguous(memory_format=torch.channels_last)
        for view in views
    ]
    low = run.recipe.precision != "fp32"
    with torch.autocast(run.device.type, PRECISIONS[run.recipe.precision], enabled=low):
        terms: dict[str, Tensor] = run.parallel(inputs, epoch, labels.to(run.device, non_blocking=True))
    return terms
