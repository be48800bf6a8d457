"""A hook of MkDocs, for pages that are read in the repository, too: links out of `docs/`, and equations."""

import re
from typing import Any

from latex2mathml.converter import convert

BLOCK = '<div style="overflow-x: auto; padding: 0.4em 0">{}</div>'
"""On a narrow screen a long equation is scrolled."""
INLINE = "<span>{}</span>"
"""In which an equation at the beginning of a line belongs to its paragraph."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page as the site has it.

    Of links to files that the site does not have only the words stay. On pages with `$$…$$` LaTeX becomes MathML,
    which browsers draw without a script.
    """
    markdown = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
    if "$$" in markdown:
        markdown = re.sub(r"\$\$([^$]+)\$\$", lambda found: BLOCK.format(convert(found[1], display="block")), markdown)
        markdown = re.sub(r"\$([^$]+)\$", lambda found: INLINE.format(convert(found[1])), markdown)
    return markdown
