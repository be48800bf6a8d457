"""How much GPU memory a recipe's step takes, counted without computing anything."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from cgh_bench.core import dist
from cgh_bench.pretrain.recipe import Recipe
from cgh_bench.pretrain.run import AUTOCAST

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
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        method: nn.Module = plain.method.build(plain.architecture).train()
        views = [torch.empty(each, 3, view.size, view.size) for view in plain.views.augments]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            terms = method(views, plain.epochs / 2, torch.empty(each, dtype=torch.int64))
    persistent = [*method.parameters(), *method.buffers(), *views]
    held = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in persistent}
    activations = sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in held)
    del terms
    trained = sum(parameter.nbytes for parameter in method.parameters() if parameter.requires_grad)
    low = 2 if recipe.precision in AUTOCAST else 1
    counted = sum(held.values()) + activations // low + (1 + PER_WEIGHT[recipe.optimizer]) * trained
    return round(ALLOWANCE * counted)
