"""One thread for each test process: `make test` runs one process a core, and sums in one order only are bit for bit.

The suite is of CPUs, on any machine; `pytest -m gpu` (tests/gpu) is the part that sees a GPU.
"""

import gc
import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    gc.disable()  # while tests are collected: imports make a million objects that stay


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()
