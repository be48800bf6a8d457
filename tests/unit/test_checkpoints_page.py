"""docs/checkpoints.md is what the code says."""

import importlib.util
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "checkpoints_page.py"


def test_the_page_is_up_to_date_and_every_origin_has_a_test() -> None:
    spec = importlib.util.spec_from_file_location("checkpoints_page", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    samples = tool.samples()
    assert set(samples) >= set(tool.READERS) - {"ours"}
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(samples), "run python tools/checkpoints_page.py"
