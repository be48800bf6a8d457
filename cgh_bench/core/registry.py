"""Registration by convention: a dict with the right name in a file in the right folder is registered."""

import importlib
import pkgutil
from functools import cache
from typing import Any


@cache
def registered(package: str, attribute: str) -> dict[str, Any]:
    """Every entry of the dicts called `attribute` in the modules of `package` (say `pretrain.methods`, `RECIPES`).

    Two modules that claim the same name are a defect of the code base, never resolved silently.
    """
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    root = importlib.import_module(package)
    for info in sorted(pkgutil.walk_packages(root.__path__, f"{package}."), key=lambda module: module.name):
        module = importlib.import_module(info.name)
        for name, entry in getattr(module, attribute, {}).items():
            assert name not in found, f"{name!r} is in both {origin[name]} and {module.__name__}"
            found[name], origin[name] = entry, module.__name__
    return found
