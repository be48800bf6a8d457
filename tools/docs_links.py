"""A hook of MkDocs: links out of `docs/` are for readers of the repository; on the site only their words stay."""

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page without links to files that the site does not have."""
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
