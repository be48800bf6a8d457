"""Finding the vision transformers among the tensors of a file, and taking one out whole."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cgh_bench.backbones.timm import Timm
from cgh_bench.backbones.vit import SIZES, ViT
from cgh_bench.reading.candidate import ANOTHER, Candidate, activation, as_float32, below, differences, unchunked
from cgh_bench.reading.vit_names import FAMILIES, canonical_names
from cgh_bench.reading.weights_file import WeightsFile

_CHANGES = {"norm_pre", "pre_norm", "dist_token", "reg_token", "register_tokens", "rope", "rel_pos_bias", "attn_pool"}
"""What others have beside the usual, and what would change the outputs."""
_LEFTOVER = re.compile(r"(embeddings\.)?mask_token")
_ANCHOR = "blocks.0.norm1.weight"


@dataclass(frozen=True)
class FoundViT(Candidate):
    """A vision transformer found in a file."""

    architecture: ViT | None

    def weights(self, file: WeightsFile) -> dict[str, Tensor]:
        """See `Candidate`."""
        assert self.architecture is not None
        joined = _joined(
            {key: as_float32(name, file.tensors[name]) for key, name in self.names.items()}, self.architecture
        )
        return {key: joined[key] for key in self.architecture.shapes}

    def attributes(self, file: WeightsFile) -> Iterator[tuple[str, Any]]:
        """See `Candidate`."""
        if heads := self.module(file, "blocks.0.attn").get("num_heads"):
            yield "heads", heads
        if act := self.module(file, "blocks.0.mlp.act"):
            is_tanh = act.get("approximate") == "tanh"
            yield "activation", "gelu_tanh" if is_tanh else activation(act["class"])
        if pooling := self.module(file, "").get("global_pool"):
            yield "pooling", "patch_mean" if pooling == "avg" else "cls"


def find_vits(tensors: Mapping[str, Tensor]) -> list[Candidate]:
    """Every vision transformer in `tensors`, whole ones first, then those with a problem."""
    given = unchunked(tensors)
    tensors = {name: tensors[as_given] for name, as_given in given.items()}
    found: dict[str, FoundViT] = {}
    names_below = below(tensors)
    for name, family in FAMILIES.items():
        anchor = family.rename(_ANCHOR)
        for at in [key.removesuffix(anchor) for key in tensors if key.endswith(anchor)]:
            if (not at or at[-1] in "./") and (at not in found or found[at].problem):
                vit = _vit(tensors, names_below(at), at, name)
                if at not in found or not vit.problem:
                    found[at] = vit
    as_given = (replace(vit, names={key: given[name] for key, name in vit.names.items()}) for vit in found.values())
    return sorted(as_given, key=lambda vit: bool(vit.problem))


def pooled_by_mean(tensors: Mapping[str, Tensor]) -> Timm | None:
    """The network of timm whose last norm is behind the mean of the patches (`fc_norm`), as MAE is fine-tuned."""
    renamed = {name.replace("fc_norm.", "norm."): tensor for name, tensor in tensors.items()}
    if renamed.keys() == tensors.keys():
        return None
    for vit in find_vits(renamed):
        if vit.architecture is not None:
            arguments = vit.architecture.timm_arguments() | {"global_pool": "avg"}
            return Timm(arguments.pop("model_name"), tuple(arguments.items()))
    return None


def _vit(tensors: Mapping[str, Tensor], inside: list[str], location: str, family: str) -> FoundViT:
    names, strange = {}, []
    table = canonical_names(family)
    modules = {foreign.split(".")[0] for foreign in table} | _CHANGES
    for name in inside:
        foreign = name[len(location) :]
        if foreign in table:
            names[table[foreign]] = name
        elif foreign.split(".")[0] in modules and not _LEFTOVER.fullmatch(foreign):
            strange.append(name)
    shapes = {key: torch.empty(tensors[name].shape, device="meta") for key, name in names.items()}
    architecture, problem = _identify(shapes)
    if strange and not problem:
        problem = f"it also has {strange[0]}, which a plain vision transformer does not have; {ANOTHER}"
    return FoundViT(location, family, names, None if problem else architecture, problem)


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
    wrong = differences(architecture.shapes, _joined(tensors, architecture), ())
    if wrong:
        return None, f"{wrong[0]} (nearest: {architecture.name}, {len(wrong)} tensors differ)"
    return architecture, ""


def _oddities(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """What keeps the tensors from being those of any known architecture."""
    for key in ("patch_embed.proj.weight", "pos_embed"):
        if key not in tensors:
            yield f"it is not a plain vision transformer: {key} is missing"
    patch, positions = tensors["patch_embed.proj.weight"], tensors["pos_embed"]
    if patch.ndim != 4:
        yield f"patch_embed.proj.weight is {tuple(patch.shape)}, not a convolution"
    for key, tensor in tensors.items():
        if key.endswith(("_token", "pos_embed")) and (tensor.ndim != 3 or tensor.shape[::2] != (1, len(patch))):
            yield f"{key} is {tuple(tensor.shape)}, not (1, tokens, {len(patch)})"
    if _size(tensors) is None:
        known = ", ".join(f"{name} ({width} wide, {depth} blocks)" for name, (width, depth) in SIZES.items())
        yield f"it is {len(patch)} wide and has {_depth(tensors)} blocks; known: {known}"
    count = positions.shape[1]
    if count - math.isqrt(count) ** 2 not in ((0, 1) if "cls_token" in tensors else (0,)):
        yield f"its {count} position embeddings do not fit a square image"


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
