"""What several files start from."""

from pathlib import Path

import pytest
from pretrain_process import TINY_CGH, made_up

from cgh_bench import data
from cgh_bench.pretrain.train import train


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of the tiny CGH."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda *_, **__: made_up())
        train(TINY_CGH, "tiny", out)
    return out
