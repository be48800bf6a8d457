"""The optimiser that a protocol names in SOLVER.OPTIMIZER: detectron2's SGD, or AdamW."""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer
from detectron2.solver.build import get_default_optimizer_params


class ClippedAdamW(torch.optim.AdamW):
    """AdamW on gradients clipped to the norm `most` over all parameters together."""

    def __init__(self, parameters: Any, lr: float, weight_decay: float, most: float) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay)
        self.most = most

    def step(self, closure: Any = None) -> Any:
        """Clip and step."""
        torch.nn.utils.clip_grad_norm_((p for group in self.param_groups for p in group["params"]), self.most)
        return super().step(closure)


def optimizer(config: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimiser of all parameters that are trained, with the weight decay of each kind.

    Raises:
        SystemExit: SOLVER.OPTIMIZER names another one.
    """
    given = config.SOLVER
    if given.OPTIMIZER == "SGD":
        return build_optimizer(config, model)
    clip = given.CLIP_GRADIENTS
    if given.OPTIMIZER != "AdamW" or (clip.ENABLED and clip.CLIP_TYPE != "full_model"):
        raise SystemExit(
            f"SOLVER.OPTIMIZER is {given.OPTIMIZER}; expected SGD, or AdamW with full_model clipping or none"
        )
    layered: dict[str, Any] = {}
    if config.TRANSFER.LAYER_DECAY != 1:
        layered = {"lr_factor_func": _factor(config, model), "overrides": {"pos_embed": {"weight_decay": 0.0}}}
    parameters = get_default_optimizer_params(
        model,
        base_lr=given.BASE_LR,
        weight_decay_norm=given.WEIGHT_DECAY_NORM,
        bias_lr_factor=given.BIAS_LR_FACTOR,
        **layered,
    )
    if not clip.ENABLED:
        return torch.optim.AdamW(parameters, given.BASE_LR, weight_decay=given.WEIGHT_DECAY)
    return ClippedAdamW(parameters, given.BASE_LR, given.WEIGHT_DECAY, given.CLIP_GRADIENTS.CLIP_VALUE)


def _factor(config: CfgNode, model: Any) -> Callable[[str], float]:
    """What the learning rate of a parameter of that name is multiplied by, by layers of the carried backbone."""
    from cgh_bench.transfer_configs.contract.carried import rate_factors  # other backbones need nothing of ours

    factors = rate_factors(model.backbone.bottom_up, config.TRANSFER.LAYER_DECAY)
    return lambda name: factors.get(name.removeprefix("backbone.bottom_up."), 1.0)
