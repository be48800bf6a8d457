"""Ask a Python interpreter what it has; this file is also the question: it is run by path, by any Python from 3.8.

    PYTHON interpreter.py mmcv mmdet mmcv._ext     →  {"mmcv": {"version": …, "package": …, "error": …}, …}

Every module is imported, as only that shows a compiled part that does not fit. Nothing of ours is needed there.
"""

from __future__ import annotations  # a Python of 3.8 must not look at them

import importlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SECONDS_ALLOWED = 120.0
"""Imports from a cold disk are slow; more than this is a hang."""
IMPORT_ERRORS = (
    ImportError,
    OSError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What imports of packages that do not fit each other raise; anything else ends the interpreter, which is told too."""


class Asked(NamedTuple):
    """An interpreter that is thinking about its answer."""

    python: str
    process: subprocess.Popen[str] | None
    error: str


def ask(python: str, modules: Sequence[str], environment: Mapping[str, str]) -> Asked:
    """Start to ask `python` for `modules`; several can be asked at once."""
    command = [python, __file__, *modules]
    try:
        pipe = subprocess.PIPE
        return Asked(python, subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=dict(environment)), "")
    except OSError as error:
        return Asked(python, None, str(error.strerror))


def answer(asked: Asked) -> dict[str, dict[str, str]]:
    """What it answered, by module: `version`, `package` (of pip), and `error` if the import fails.

    Raises:
        ValueError: it does not run, or broke down; the message is one line.
    """
    if asked.process is None:
        raise ValueError(asked.error)
    try:
        out, errors = asked.process.communicate(timeout=SECONDS_ALLOWED)
    except subprocess.TimeoutExpired:
        asked.process.kill()
        asked.process.communicate()
        raise ValueError(f"no answer in {SECONDS_ALLOWED:.0f} s") from None
    if asked.process.returncode:
        last = [line.strip() for line in errors.splitlines() if line.strip()][-1:]
        raise ValueError(f"exit code {asked.process.returncode}: {''.join(last) or 'no message'}")
    found: dict[str, dict[str, str]] = json.loads(out.splitlines()[-1])
    return found


def describe(name: str, packages: Mapping[str, list[str]]) -> dict[str, str]:
    """Import the module `name` here and say what it is."""
    found = {
        "version": "",
        "package": ", ".join(sorted(set(packages.get(name.split(".", maxsplit=1)[0], [])))),
        "error": "",
    }
    try:
        module = importlib.import_module(name)
    except IMPORT_ERRORS as error:
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return found
    found["version"] = str(getattr(module, "__version__", ""))
    return found


def _packages() -> dict[str, list[str]]:
    from importlib import metadata

    known = getattr(metadata, "packages_distributions", None)  # from 3.10 on
    return dict(known()) if known else {}


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder, whose names are not meant
    import warnings

    warnings.simplefilter("ignore")
    packages = _packages()
    print(json.dumps({name: describe(name, packages) for name in sys.argv[1:]}))
