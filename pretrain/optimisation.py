"""The optimiser of a recipe, its parameter groups and its learning rate."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cgh_bench.core.descent import half_cosine
from cgh_bench.pretrain.recipe import Method, Recipe

TRUST = 0.001
"""LARS's factor in BYOL's, SwAV's and MoCo v3's code."""
DECAYS: dict[str, Callable[[str, nn.Parameter], bool]] = {
    "matrices": lambda name, parameter: parameter.ndim > 1,
    "all": lambda name, parameter: True,
    "names": lambda name, parameter: "bn" not in name and "bias" not in name,
}
"""Whether a parameter has weight decay, for each value of `Recipe.decay`."""


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The rate at a fractional `epoch`: linear from exactly 0 over the warm-up, then half a cosine down to 0."""
    peak = recipe.base_lr * recipe.batch_size / 256
    if epoch < recipe.warmup_epochs:
        return peak * epoch / recipe.warmup_epochs
    done = (epoch - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return peak * half_cosine(min(done, 1.0))


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: float) -> float:
    """Set the rate of every group for a fractional `epoch`; returns the scheduled one."""
    rate = learning_rate(recipe, epoch)
    for group in optimizer.param_groups:
        group["lr"] = recipe.base_lr * recipe.batch_size / 256 if group["constant_rate"] else rate
    return rate


def optimizer(recipe: Recipe, method: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser of all parameters with a gradient, grouped by weight decay and schedule."""
    constant = method.constant_rate if isinstance(method, Method) else ()
    trained = [(name, parameter) for name, parameter in method.named_parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [
                parameter
                for name, parameter in trained
                if name.startswith(constant) == constant_rate and DECAYS[recipe.decay](name, parameter) == decays
            ],
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "constant_rate": constant_rate,
        }
        for constant_rate in ((False, True) if constant else (False,))
        for decays in (True, False)
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(recipe.momentum, 0.999), fused=True)
    if recipe.optimizer == "lars":
        return Lars(groups, recipe.momentum)
    # Not fused: that cannot take parameters whose first gradient comes after a step, as those that `frozen` names.
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum)


class Lars(torch.optim.SGD):
    """LARS: SGD with momentum that rescales each gradient, weight decay added, to `TRUST` times its parameter's norm.

    Groups without weight decay (biases, norms) are plain SGD. Source: You, Gitman, Ginsburg, Large Batch Training of
    Convolutional Networks (arXiv 1708.03888), with the exclusions of BYOL (arXiv 2006.07733, §3.3). Not timm's `Lars`,
    which divides by the sum of the norms of gradient and decay, where BYOL's code takes the norm of their sum.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float) -> None:
        adapted = [{**group, "decay": group["weight_decay"], "weight_decay": 0.0} for group in groups]
        super().__init__(adapted, lr=0.0, momentum=momentum)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Rescale the gradients in place, then descend."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None] if group["decay"] else []
            if parameters:
                gradients = [p.grad for p in parameters]
                torch._foreach_add_(gradients, parameters, alpha=group["decay"])
                lengths = zip(torch._foreach_norm(parameters), torch._foreach_norm(gradients), strict=True)
                ratios = [torch.where((p > 0) & (g > 0), TRUST * p / g, 1.0) for p, g in lengths]
                torch._foreach_mul_(gradients, ratios)
        super().step(closure)
