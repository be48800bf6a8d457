"""Run a module of this package in another framework's Python, where cgh_bench need not be installed.

    PYTHON …/cgh_bench/transfer_configs/__main__.py openmmlab.train --config animals_det.py …

`cgh_bench` is registered from the folder around this one. Nothing is added to `sys.path`, so packages of our own
environment cannot hide those of the framework's. With cgh_bench installed, `python -m
cgh_bench.transfer_configs.openmmlab.train` does the same.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).absolute().parent


def register() -> None:
    """Make `cgh_bench` the package in the folder around this one, whichever version is installed."""
    spec = importlib.util.spec_from_file_location("cgh_bench", HERE.parent / "__init__.py")
    assert spec is not None and spec.loader is not None
    package = sys.modules["cgh_bench"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


def main() -> None:
    """Run the `main` of the module that the first argument names."""
    if len(sys.argv) < 2:
        raise SystemExit("name a module of cgh_bench.transfer_configs, such as openmmlab.train")
    name = sys.argv.pop(1)
    sys.argv[0] = name  # as its usage message shows it
    sys.exit(importlib.import_module(f"cgh_bench.transfer_configs.{name}").main())


# Python puts a script's folder first on the path. In this one `detectron2` is ours.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE.resolve()]
if "cgh_bench" not in sys.modules:  # else it was started by -m; also run by processes that were spawned
    register()

if __name__ == "__main__":
    main()
