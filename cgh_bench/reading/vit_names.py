"""Vision transformers among the tensors of a file: how others name them, finding them, and taking one out whole."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from cgh_bench.backbones.vit import SIZES, ViT
from cgh_bench.reading.trunks import Trunk, differences, expected

_MOST_BLOCKS = max(depth for _, depth in SIZES.values())
_CHANGES = {"norm_pre", "pre_norm", "dist_token", "reg_token", "register_tokens", "rope", "rel_pos_bias"}
"""What others have beside the usual, and what would change the outputs."""
_LEFTOVER = re.compile(r"(embeddings\.)?mask_token")
_ANCHOR = "blocks.0.norm1.weight"


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


def find_vits(tensors: Mapping[str, Tensor]) -> list[Trunk]:
    """Every vision transformer in `tensors`, whole ones first, then those with a problem."""
    found: dict[str, Trunk] = {}
    for name, family in FAMILIES.items():
        anchor = family.rename(_ANCHOR)
        for at in [key.removesuffix(anchor) for key in tensors if key.endswith(anchor)]:
            if (not at or at[-1] in "./") and (at not in found or found[at].problem):
                trunk = _trunk(tensors, at, name)
                if at not in found or not trunk.problem:
                    found[at] = trunk
    return sorted(found.values(), key=lambda trunk: bool(trunk.problem))


def _trunk(tensors: Mapping[str, Tensor], location: str, family: str) -> Trunk:
    names, strange = {}, []
    table = canonical_names(family)
    inside = {foreign.split(".")[0] for foreign in table} | _CHANGES
    for name in tensors:
        foreign = name[len(location) :]
        if name.startswith(location) and foreign in table:
            names[table[foreign]] = name
        elif name.startswith(location) and foreign.split(".")[0] in inside and not _LEFTOVER.fullmatch(foreign):
            strange.append(name)
    shapes = {key: torch.empty(tensors[name].shape, device="meta") for key, name in names.items()}
    architecture, problem = _identify(shapes)
    if strange and not problem:
        problem = f"it also has {strange[0]}, which a plain vision transformer has not"
    return Trunk(location, family, names, None if problem else architecture, problem)


def _identify(tensors: Mapping[str, Tensor]) -> tuple[ViT | None, str]:
    """The architecture that has exactly these names and shapes (of meta tensors), or what is wrong.

    The number of heads and the norms' epsilon are not in the tensors: `evidence` knows them.
    """
    if oddity := next(_oddities(tensors), ""):
        return None, oddity
    patch, count = tensors["patch_embed.proj.weight"], tensors["pos_embed"].shape[1]
    side = math.isqrt(count)
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    architecture = ViT(
        f"vit_{_size(tensors)}_patch{patch.shape[-1]}_{side * patch.shape[-1]}",
        class_token="cls_token" in tensors,
        class_position=count > side * side and not registers,
        registers=registers,
        layer_scale="blocks.0.ls1.gamma" in tensors,
    )
    wrong = differences(expected(architecture), _joined(tensors, architecture), ())
    if wrong:
        return None, f"{wrong[0]} (nearest: {architecture.name}, {len(wrong)} tensors differ)"
    return architecture, ""


def _oddities(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """What keeps the tensors from being those of any known architecture."""
    for key in ("patch_embed.proj.weight", "pos_embed"):
        if key not in tensors:
            yield f"it is no plain vision transformer: {key} is missing"
    patch, positions = tensors["patch_embed.proj.weight"], tensors["pos_embed"]
    if patch.ndim != 4:
        yield f"patch_embed.proj.weight is {tuple(patch.shape)}, no convolution"
    for key, tensor in tensors.items():
        if key.endswith(("_token", "pos_embed")) and (tensor.ndim != 3 or tensor.shape[::2] != (1, len(patch))):
            yield f"{key} is {tuple(tensor.shape)}, not (1, tokens, {len(patch)})"
    if _size(tensors) is None:
        known = ", ".join(f"{name} ({width} wide, {depth} blocks)" for name, (width, depth) in SIZES.items())
        yield f"it is {len(patch)} wide and has {_depth(tensors)} blocks; known: {known}"
    count = positions.shape[1]
    if count - math.isqrt(count) ** 2 not in ((0, 1) if "cls_token" in tensors else (0,)):
        yield f"its {count} position embeddings are those of no square image"


def _depth(tensors: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[1] for key in tensors if key.startswith("blocks.")})


def _size(tensors: Mapping[str, Tensor]) -> str | None:
    shape = (len(tensors["patch_embed.proj.weight"]), _depth(tensors))
    return next((name for name, known in SIZES.items() if known == shape), None)


def _joined(tensors: Mapping[str, Tensor], architecture: ViT) -> dict[str, Tensor]:
    """`tensors` by our names: query, key and value in one; the class token's position added to it under registers.

    With registers timm keeps no position for the class token (`_convert_dinov2` of timm's vision_transformer.py adds
    it, as here; the network would do so in its first step).
    """
    joined = {key: tensor for key, tensor in tensors.items() if not re.search(r"\.attn\.[qkv]\.", key)}
    for key in tensors:
        if ".attn.q." in key:
            parts = [tensors.get(key.replace(".attn.q.", f".attn.{part}."), tensors["pos_embed"]) for part in "qkv"]
            if all(part.shape == parts[0].shape for part in parts):
                joined[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
    if architecture.registers and joined["pos_embed"].shape[1] > (architecture.image_side // architecture.patch) ** 2:
        joined["cls_token"] = joined["cls_token"] + joined["pos_embed"][:, :1]
        joined["pos_embed"] = joined["pos_embed"][:, 1:].clone()
    return joined


def joined_weights(tensors: Mapping[str, Tensor], trunk: Trunk) -> dict[str, Tensor]:
    """The tensors of a whole `trunk` by our names, in our order."""
    assert isinstance(trunk.architecture, ViT)
    joined = _joined({key: tensors[name] for key, name in trunk.names.items()}, trunk.architecture)
    return {key: joined[key] for key in expected(trunk.architecture)}
