"""Families of architectures (`base`), one file each, named in its `FAMILIES`; what they build is in `networks`."""

from collections.abc import Mapping
from typing import Any

from cgh_bench.backbones.base import GLOBAL_FEATURE, Architecture
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.registry import registered

__all__ = [
    "GLOBAL_FEATURE",
    "Architecture",
    "families",
    "from_fields",
    "named",
    "names",
    "to_fields",
]


_TOLD_BY_NAME = ("resnet", "vit")
"""Their checkpoints were written before there were others."""


def families() -> dict[str, type[Architecture]]:
    """Every family by name; those that build networks of any kind come last."""
    found: dict[str, type[Architecture]] = registered("cgh_bench.backbones", "FAMILIES")
    return dict(sorted(found.items(), key=lambda entry: entry[1].GENERIC))


def named(name: str) -> Architecture:
    """The usual architecture of that name: `resnet50`, `vit_small_patch16_224`, `convnext_tiny`.

    Raises:
        UserError: no family has it; the nearest names are given.
    """
    for family in families().values():
        if (architecture := family.named(name)) is not None:
            return architecture
    raise unknown("architecture", name, names())


def names() -> list[str]:
    """Every name that `named` surely knows, each once."""
    return list(dict.fromkeys(name for family in families().values() for name in family.names()))


def to_fields(architecture: Architecture) -> dict[str, Any]:
    """`architecture` as JSON values; the families of `_TOLD_BY_NAME` say nothing of themselves."""
    family = next(name for name, kind in families().items() if type(architecture) is kind)
    return {**({} if family in _TOLD_BY_NAME else {"family": family}), **architecture.recorded()}


def from_fields(fields: Mapping[str, Any]) -> Architecture:
    """The architecture that `to_fields` described.

    Raises:
        KeyError, TypeError, ValueError: `fields` describe none.
        UserError: they describe one that does not exist.
    """
    rest = dict(fields)
    family = rest.pop("family", None)
    if family is None:
        family = "vit" if str(rest["name"]).startswith("vit_") else "resnet"
    known = families()
    if family not in known:
        raise UserError(f"unknown architecture family {family!r}; upgrade cgh-bench to read it")
    architecture = known[family](**rest)
    hash(architecture)  # TypeError for lists and dicts, which no field is
    return architecture
