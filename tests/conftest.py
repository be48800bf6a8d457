"""One thread for each test process: `make test` runs one process a core, and sums in one order only are bit for bit.

The suite is of CPUs, on any machine; `pytest -m gpu` (tests/gpu) is the part that sees a GPU.
"""

import gc
import importlib
import os
import sys

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
# Containers often forbid bytecode: every worker, and every process of a test, would compile everything again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    gc.disable()  # while tests are collected: imports make a million objects that stay


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def libraries_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm and transformers prove a conversion in this process, which has imported them; users get one of its own."""
    from cgh_bench.converters import parity

    def outputs(converter: str, package: str, weights: object, pixels: object) -> parity.Outputs:
        return importlib.import_module(f"cgh_bench.converters.{converter}").network_outputs(weights, pixels)

    monkeypatch.setattr(parity, "library_outputs", outputs)
