"""How others name the tensors of a vision transformer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from cgh_bench.backbones.vit import SIZES

if TYPE_CHECKING:
    from torch import Tensor

_MOST_BLOCKS = max(depth for _, depth in SIZES.values())


@dataclass(frozen=True)
class Family:
    """How an origin names modules and tensors; those of a block stand in `block`, with its number as `{}`."""

    outer: Mapping[str, str]
    block: str
    inner: Mapping[str, str]

    @property
    def splits(self) -> bool:
        """Whether query, key and value are kept apart: our `attn.qkv` is then their `attn.q`, `.k` and `.v`."""
        return "attn.q" in self.inner

    def rename(self, key: str) -> str:
        """Their name for our `key`.

        Raises:
            KeyError: they have no such tensor.
        """
        found = re.fullmatch(r"blocks\.(\d+)\.(.+)", key)
        table, start, rest = (self.inner, self.block.format(found[1]), found[2]) if found else (self.outer, "", key)
        if rest in table:
            return start + table[rest]
        module, leaf = rest.rsplit(".", 1)
        return f"{start}{table[module]}.{leaf}"


_OUTER = {name: name for name in ("cls_token", "reg_token", "pos_embed", "patch_embed.proj", "norm")}
_INNER = {
    name: name for name in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2", "ls1.gamma", "ls2.gamma")
}
_HUGGINGFACE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_APART = {
    "attn.q": "attention.attention.query",
    "attn.k": "attention.attention.key",
    "attn.v": "attention.attention.value",
    "attn.proj": "attention.output.dense",
}
_VERSION_5 = {
    "attn.q": "attention.q_proj",
    "attn.k": "attention.k_proj",
    "attn.v": "attention.v_proj",
    "attn.proj": "attention.o_proj",
}
_BEFORE_AFTER = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
_MLP = {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_DINOV2 = _MLP | {
    "norm1": "norm1",
    "norm2": "norm2",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}

FAMILIES: Mapping[str, Family] = {
    "vit": Family(_OUTER, "blocks.{}.", _INNER),
    "vit_dinov2": Family(_OUTER | {"reg_token": "register_tokens"}, "blocks.{}.", _INNER),
    "vit_huggingface": Family(
        _HUGGINGFACE,
        "encoder.layer.{}.",
        _APART | _BEFORE_AFTER | {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"},
    ),
    "vit_huggingface_5": Family(_HUGGINGFACE, "layers.{}.", _VERSION_5 | _BEFORE_AFTER | _MLP),
    "dinov2_huggingface": Family(_HUGGINGFACE, "encoder.layer.{}.", _APART | _DINOV2),
    "dinov2_huggingface_5": Family(_HUGGINGFACE, "encoder.layer.{}.", _VERSION_5 | _DINOV2),
    "vit_openmmlab": Family(
        _OUTER | {"patch_embed.proj": "patch_embed.projection", "norm": "ln1"},
        "layers.{}.",
        {
            "norm1": "ln1",
            "attn.qkv": "attn.qkv",
            "attn.proj": "attn.proj",
            "norm2": "ln2",
            "mlp.fc1": "ffn.layers.0.0",
            "mlp.fc2": "ffn.layers.1",
        },
    ),
}
"""timm's (DINO's, MoCo v3's, MAE's, solo-learn's); DINOv2's; transformers' files, and its networks since version 5
(`conversion_mapping.py`); mmpretrain's (v1.2.0 mmpretrain/models/backbones/vision_transformer.py)."""


@cache
def canonical_names(family: str) -> Mapping[str, str]:
    """Every name that `family` can give a tensor, to ours."""
    known = FAMILIES[family]
    keys = [*_leaves(known.outer)]
    keys += [f"blocks.{number}.{leaf}" for number in range(_MOST_BLOCKS) for leaf in _leaves(known.inner)]
    table = {known.rename(key): key for key in keys}
    assert len(table) == len(keys), f"{family} gives two tensors one name"
    return table


def _leaves(modules: Mapping[str, str]) -> Iterator[str]:
    for module in modules:
        if module.endswith(("token", "pos_embed", "gamma")):
            yield module
        else:
            yield from (f"{module}.weight", f"{module}.bias")


def split(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` with query, key and value apart, as views."""
    apart: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        if ".attn.qkv." in key:
            apart |= {key.replace("qkv", part): piece for part, piece in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            apart[key] = tensor
    return apart
