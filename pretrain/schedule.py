"""The optimiser and its learning rate."""

import math

import torch
from torch import nn

from pretrain.recipe import Recipe


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The rate at a fractional `epoch`: linear from exactly 0 over the warm-up, then half a cosine down to 0."""
    peak = recipe.base_lr * recipe.batch_size / 256
    if epoch < recipe.warmup_epochs:
        return peak * epoch / recipe.warmup_epochs
    done = (epoch - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return peak * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def optimizer(recipe: Recipe, method: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser of what has a gradient; parameters of one dimension (biases, norms) do not decay."""
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum)
