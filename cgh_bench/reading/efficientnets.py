"""EfficientNets under the names of lukemelas/EfficientNet-PyTorch and its relatives, as timm names them."""

from collections.abc import Mapping

from torch import Tensor

_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2", **_SQUEEZE}
"""Blocks that do not expand."""
_OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    **_SQUEEZE,
}


def timm_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Their names to timm's; empty where `tensors` are not of such a network.

    Their blocks are numbered through; a new stage begins where the width changes
    (https://github.com/lukemelas/EfficientNet-PyTorch efficientnet_pytorch/model.py). They pad as TensorFlow does:
    timm's `tf_efficientnet_…`.
    """
    if "_conv_stem.weight" not in tensors:
        return {}
    found: dict[str, str] = {}
    stage, block, last, number = -1, 0, 0, 0
    while (end := tensors.get(f"_blocks.{number}._project_conv.weight")) is not None:
        stage, block = (stage, block + 1) if len(end) == last else (stage + 1, 0)
        table = _OTHER if f"_blocks.{number}._expand_conv.weight" in tensors else _FIRST
        found |= {f"_blocks.{number}.{ours}": f"blocks.{stage}.{block}.{theirs}" for ours, theirs in table.items()}
        last, number = len(end), number + 1
    modules = {**_OUTER, **found}
    return {
        key: f"{modules[module]}.{leaf}"
        for key in tensors
        if (module := key.rpartition(".")[0]) in modules and (leaf := key.rpartition(".")[2])
    }
