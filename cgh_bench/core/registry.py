"""Registration by convention: a dict with the right name in a file in the right folder is registered."""

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

from cgh_bench.core.errors import UserError, one_line, unknown


def _modules(package: str) -> tuple[list[ModuleType], list[str]]:
    """The modules of `package` in the order of their names, and a sentence for each that cannot be imported."""
    modules, broken = [], []
    root = importlib.import_module(package)
    infos = pkgutil.walk_packages(root.__path__, f"{package}.", onerror=lambda name: None)
    for name in sorted(info.name for info in infos):
        try:
            modules.append(importlib.import_module(name))
        except Exception as error:  # whatever is wrong with one file
            broken.append(f"{name} cannot be imported ({type(error).__name__}: {one_line(error)})")
    return modules, broken


@cache
def registered(package: str, attribute: str) -> dict[str, Any]:
    """Every entry of the dicts called `attribute` in the modules of `package` (say `pretrain.methods`, `RECIPES`).

    The entries of a module that cannot be imported are missing; see `broken`. Two modules that claim the same name are
    a defect of the code base, never resolved silently.
    """
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for module in _modules(package)[0]:
        for name, entry in getattr(module, attribute, {}).items():
            assert name not in found, f"{name!r} is in both {origin[name]} and {module.__name__}"
            found[name], origin[name] = entry, module.__name__
    return found


def broken(package: str) -> list[str]:
    """A sentence for each module of `package` that cannot be imported, with the reason."""
    return _modules(package)[1]


def find(package: str, attribute: str, name: str, what: str) -> Any:
    """The entry `name` of the registry; `what` it is (`task`, `recipe`) is for the message.

    Raises:
        UserError: there is no such entry (nearest names are given), or it may be in a module that cannot be imported.
    """
    known = registered(package, attribute)
    if name not in known:
        raise UserError("; ".join([str(unknown(what, name, known)), *broken(package)]))
    return known[name]
