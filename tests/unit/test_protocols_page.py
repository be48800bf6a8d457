"""docs/protocols.md is what the code says."""

import importlib.util
from pathlib import Path

from cgh_bench.core.registry import registered

TOOL = Path(__file__).parents[2] / "tools" / "protocols_page.py"


def test_the_page_is_up_to_date_and_names_every_task() -> None:
    spec = importlib.util.spec_from_file_location("protocols_page", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = tool.page()
    assert all(f"`{name}@" in text for name in registered("cgh_bench.tasks", "TASKS"))
    assert tool.PAGE.read_text(encoding="utf-8") == text, "run python tools/protocols_page.py"
