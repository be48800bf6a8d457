"""LARS: SGD for large batches."""

from typing import Any

import torch

TRUST = 0.001
"""As in BYOL's, SwAV's and MoCo v3's code."""


class Lars(torch.optim.SGD):
    """SGD with momentum whose every decaying gradient is first made `TRUST` times as long as its parameter.

    Groups without weight decay (biases, norms) are plain SGD. Source: You, Gitman, Ginsburg, Large Batch Training of
    Convolutional Networks (arXiv 1708.03888), with the exclusions of BYOL (arXiv 2006.07733, §3.3).
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
