"""The optimiser, its learning rate, and other values that change over a run."""

import math
from collections.abc import Callable

import torch
from torch import nn

from cgh_bench.pretrain.lars import Lars
from cgh_bench.pretrain.recipe import Method, Recipe


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The rate at a fractional `epoch`: linear from exactly 0 over the warm-up, then half a cosine down to 0."""
    peak = recipe.base_lr * recipe.batch_size / 256
    if epoch < recipe.warmup_epochs:
        return peak * epoch / recipe.warmup_epochs
    done = (epoch - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return peak * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: float) -> float:
    """Give every group its rate at a fractional `epoch`; returns the scheduled one."""
    rate = learning_rate(recipe, epoch)
    for group in optimizer.param_groups:
        group["lr"] = recipe.base_lr * recipe.batch_size / 256 if group["constant_rate"] else rate
    return rate


def optimizer(recipe: Recipe, method: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser of what has a gradient, in groups with and without decay and schedule."""
    constant = method.constant_rate if isinstance(method, Method) else ()
    trained = [(name, parameter) for name, parameter in method.named_parameters() if parameter.requires_grad]
    groups = []
    for constant_rate in (False, True) if constant else (False,):
        members = [(n, p) for n, p in trained if n.startswith(constant) == constant_rate]
        for decays in (True, False):
            groups.append(
                {
                    "params": [p for n, p in members if DECAYS[recipe.decay](n, p) == decays],
                    "weight_decay": recipe.weight_decay if decays else 0.0,
                    "constant_rate": constant_rate,
                }
            )
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(recipe.momentum, 0.999))
    if recipe.optimizer == "lars":
        return Lars(groups, recipe.momentum)
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum)


DECAYS: dict[str, Callable[[str, nn.Parameter], bool]] = {
    "matrices": lambda name, parameter: parameter.ndim > 1,
    "all": lambda name, parameter: True,
    "names": lambda name, parameter: "bn" not in name and "bias" not in name,
}


def rising(start: float, done: float) -> float:
    """From `start` to 1 over a run, of which a share is `done`: a teacher's momentum in BYOL (arXiv 2006.07733), DINO.

    By half a cosine.
    """
    return 1 - (1 - start) * (math.cos(math.pi * min(done, 1.0)) + 1) / 2
