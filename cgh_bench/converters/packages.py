"""Packages that only a certificate needs."""

import importlib
import importlib.util
from typing import Any

from cgh_bench.errors import UserError


def require_package(name: str) -> Any:
    """Import the package `name`.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise UserError(f"the proof needs {name}, which is not installed; pip install {name}, or pass --no-verify")
    return importlib.import_module(name)
