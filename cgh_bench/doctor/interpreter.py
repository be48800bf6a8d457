"""Which modules a Python interpreter can import; run by path in any Python from 3.8 on, which need not have cgh_bench.

    PYTHON interpreter.py mmcv mmdet mmcv._ext     →  {"mmcv": {"version": …, "package": …, "error": …}, …}

Every module is imported, as only that shows a compiled part that does not fit.
"""

from __future__ import annotations  # Python 3.8 must not evaluate them

import importlib
import json
import sys
import warnings
from collections.abc import Mapping
from importlib import metadata


def as_line(error: Exception) -> str:
    """The error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def describe(name: str, packages: Mapping[str, list[str]]) -> dict[str, str]:
    """Version of the module `name`, the pip package it comes from, and the error if it cannot be imported."""
    package = ", ".join(sorted(set(packages.get(name.partition(".")[0], []))))
    try:
        version = str(getattr(importlib.import_module(name), "__version__", ""))
    except Exception as error:
        return {"version": "", "package": package, "error": as_line(error)}
    return {"version": version, "package": package, "error": ""}


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    warnings.simplefilter("ignore")
    packages_of: dict[str, list[str]] = getattr(metadata, "packages_distributions", dict)()  # from Python 3.10 on
    print(json.dumps({name: describe(name, packages_of) for name in sys.argv[1:]}))
