"""Whether weights look sound and trained: remarks for `inspect`, and for a warning before they are evaluated."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cgh_bench.core.saved import is_finite

_KERNEL_CORRELATION = 0.2
"""Neighbouring weights of a trained 7x7 convolution correlate by 0.5 and more, of a random one by 0 ± 0.02."""
_STD_TOLERANCE = 0.03


def checks(weights: Mapping[str, Tensor]) -> list[dict[str, str]]:
    """Remarks on canonical `weights`: `verdict` is ok, doubt or bad, `remark` says why; the first on finite values."""
    has_statistics = any(key.endswith("running_mean") for key in weights)
    convolutions = {key: tensor for key, tensor in weights.items() if tensor.ndim == 4}
    matrices = {key: tensor for key, tensor in weights.items() if tensor.ndim == 2}
    found = [_finite(weights), _dead(convolutions if has_statistics else matrices)]
    if has_statistics:
        found += [_statistics(weights), _initial(convolutions)]
    elif any("norm" in key for key in weights):
        found.append(_norms(weights))
    if any(key.endswith("gamma") for key in weights):
        found.append(_layer_scales(weights))
    if has_statistics and "conv1.weight" in convolutions and convolutions["conv1.weight"].shape[-1] > 3:
        found.append(_smooth(convolutions["conv1.weight"]))
    return [{"verdict": verdict, "remark": remark} for verdict, remark in found]


def _finite(weights: Mapping[str, Tensor]) -> tuple[str, str]:
    broken = [key for key, tensor in weights.items() if not is_finite(tensor)]
    if broken:
        return "bad", f"{len(broken)} tensors contain NaN or infinity, first {broken[0]}: training diverged"
    return "ok", "all values are finite"


def _dead(layers: Mapping[str, Tensor]) -> tuple[str, str]:
    seen = {key: tensor for key, tensor in layers.items() if not key.endswith("mask_token")}  # of masked images only
    dead = [key for key, tensor in seen.items() if bool((tensor == tensor.flatten()[0]).all())]
    if dead:
        return "bad", f"{len(dead)} convolutions or matrices are zero or constant, first {dead[0]}"
    return "ok", "no convolution or matrix is constant"


def _norms(weights: Mapping[str, Tensor]) -> tuple[str, str]:
    """Whether the LayerNorms of a vision transformer are as initialised."""
    norms = {key: tensor for key, tensor in weights.items() if "norm" in key}
    as_new = [key for key, t in norms.items() if bool((t == (1 if key.endswith("weight") else 0)).all())]
    if len(as_new) == len(norms):
        return "bad", "all LayerNorms have their initial values: this network looks untrained"
    return "ok", f"{len(norms) - len(as_new)} of {len(norms)} LayerNorm tensors differ from their initial values"


def _layer_scales(weights: Mapping[str, Tensor]) -> tuple[str, str]:
    """Whether the learned scales of branches are as initialised, all of a layer's the same."""
    scales = {key: tensor for key, tensor in weights.items() if key.endswith("gamma")}
    constant = [key for key, tensor in scales.items() if bool((tensor == tensor.flatten()[0]).all())]
    if constant:
        first = constant[0]
        return "bad", f"{len(constant)} of {len(scales)} layer scales are constant, first {first}: they were not loaded"
    return "ok", f"the {len(scales)} layer scales are trained"


def _statistics(weights: Mapping[str, Tensor]) -> tuple[str, str]:
    means = torch.cat([tensor for key, tensor in weights.items() if key.endswith("running_mean")])
    variances = torch.cat([tensor for key, tensor in weights.items() if key.endswith("running_var")])
    if bool((means == 0).all() and (variances == 1).all()):
        return "bad", "all BatchNorm statistics have their initial values: this network looks untrained"
    if bool((means == 0).all() and ((variances - 1).abs() < 2e-5).all()):
        return "ok", "BatchNorm statistics are folded into scale and offset (Caffe2)"
    if bool((variances < 0).any()):
        return "bad", "a BatchNorm variance is negative"
    layers = {key: tensor for key, tensor in weights.items() if key.endswith("running_var")}
    if dead := [key for key, tensor in layers.items() if not bool(tensor.any())]:
        return "bad", f"all BatchNorm variances of {len(dead)} layers are zero, first {dead[0]}"
    counted = [int(tensor) for key, tensor in weights.items() if key.endswith("num_batches_tracked")]
    over = f" over {max(counted):,} batches" if max(counted) else ""
    constant = int((variances == 0).sum())  # published networks have such channels (EfficientNet)
    apart = f"; {constant:,} of {len(variances):,} channels are constant" if constant else ""
    return "ok", f"BatchNorm statistics are trained{over}{apart}"


def _initial(convolutions: Mapping[str, Tensor]) -> tuple[str, str]:
    """Whether the spread of every convolution is that of torchvision's initialisation (Kaiming normal, fan out)."""
    as_new = [
        math.isclose(float(t.std()), math.sqrt(2 / (t.shape[0] * t.shape[2] * t.shape[3])), rel_tol=_STD_TOLERANCE)
        for t in convolutions.values()
    ]
    if all(as_new):
        return "bad", "weight statistics match random initialisation: this network looks untrained"
    return (
        "ok",
        f"{len(as_new) - sum(as_new)} of {len(as_new)} convolutions differ from random initialisation",
    )


def _smooth(kernels: Tensor) -> tuple[str, str]:
    """The correlation of horizontal neighbours in the first convolution."""
    left, right = kernels[..., :-1].flatten(), kernels[..., 1:].flatten()
    correlation = float(torch.corrcoef(torch.stack([left, right]))[0, 1])
    if correlation < _KERNEL_CORRELATION:
        return "doubt", f"neighbouring weights of the first 7x7 kernels hardly correlate ({correlation:.2f}): random?"
    return "ok", f"the first 7x7 kernels are smooth (correlation of neighbours {correlation:.2f})"
