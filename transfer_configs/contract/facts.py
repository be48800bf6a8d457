"""A built model and its solver as plain values, under the same names in every framework."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

BACKBONE = "backbone"


def model_facts(model: nn.Module, parts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Parameters, frozen parameters and norm layers of each part.

    Args:
        model: in training mode.
        parts: prefixes of names of parameters and modules, each with the part ("backbone", "neck", "RPN", "box head",
            …) that they belong to; the first prefix that fits counts.
    """

    def part_of(name: str) -> str:
        return next(part for prefix, part in parts if name.startswith(prefix))

    sizes: dict[str, int] = {}
    frozen: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        sizes[part] = sizes.get(part, 0) + parameter.numel()
        frozen[part] = frozen.get(part, 0) + (0 if parameter.requires_grad else parameter.numel())
    norms: dict[str, dict[str, int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
            kind = type(module).__name__.removesuffix("2d") + ("" if module.training else ", not trained")
            counts = norms.setdefault(part_of(name), {})
            counts[kind] = counts.get(kind, 0) + 1
    return {"parameters": sizes, "frozen parameters": frozen, "norm layers": norms}


def optimizer_facts(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Its class, and how many parameter values have each weight decay and each share of the learning rate."""
    defaults, highest = optimizer.defaults, max(group["lr"] for group in optimizer.param_groups)
    decays: dict[str, int] = {}
    shares: dict[str, int] = {}
    for group in optimizer.param_groups:
        values = sum(parameter.numel() for parameter in group["params"])
        decays[f"{group['weight_decay']:g}"] = decays.get(f"{group['weight_decay']:g}", 0) + values
        share = f"{group['lr'] / highest:g}"
        shares[share] = shares.get(share, 0) + values
    kind = next(base.__name__ for base in type(optimizer).__mro__ if base.__module__.startswith("torch.optim"))
    return {
        "kind": kind,
        **{name: defaults[name] for name in ("momentum", "nesterov", "betas") if name in defaults},
        "values by weight decay": decays,
        "values by share of the learning rate": shares,
    }


def sampled_steps(steps: int) -> list[int]:
    """Steps whose learning rates tell schedules apart: in the warm-up, each twelfth, first and last."""
    early = [0, 1, 10, 99, 100, 500, 999, 1000]
    return sorted({step for step in (*early, *(steps * n // 12 for n in range(12)), steps - 1) if step < steps})


def schedule_facts(rate_at: Callable[[int], float], steps: int) -> dict[str, float]:
    """The learning rate at each sampled step (counted from 0), to four digits."""
    return {str(step): float(f"{rate_at(step):.4g}") for step in sampled_steps(steps)}


def anchor_facts(boxes_by_stride: Mapping[int, torch.Tensor]) -> dict[str, list[list[float]]]:
    """Width and height in pixels of the anchors (A, 4) at one location, by stride."""
    return {
        str(stride): sorted([round(x1 - x0, 1), round(y1 - y0, 1)] for x0, y0, x1, y1 in boxes.tolist())
        for stride, boxes in boxes_by_stride.items()
    }
