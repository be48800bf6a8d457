"""Templates to HTML: everything escaped, the styles and scripts either written into the page or shared by several."""

import datetime
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
SIZE_MARK = "@page-weight@"


def render(template: str, context: dict[str, Any], assets: str = "") -> str:
    """A template of the package, filled; every value is escaped unless it is `Markup`.

    Args:
        template: its file name.
        context: its variables; it must use no others.
        assets: folder of the files of `shared`, as seen from the page; empty to write them into it.
    """
    made = datetime.datetime.now(datetime.UTC)
    html = _environment().get_template(template).render({"charts": False, **context, "made": made, "assets": assets})
    return html.replace(SIZE_MARK, _megabytes(len(html.encode())))


def shared() -> dict[str, str]:
    """The files that pages share, by name."""
    import plotly.offline

    own = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "page.js", "site.js")}
    return {**own, "plotly.min.js": plotly.offline.get_plotlyjs()}


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = shared()
    environment.globals.update(
        style=Markup(files["style.css"]),
        script=Markup(files["page.js"]),
        plotly=Markup(files["plotly.min.js"]),
        plotly_weight=_megabytes(len(files["plotly.min.js"].encode())),
        page_weight=SIZE_MARK,
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return environment


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size > 1e5 else f"{size / 1e3:.0f} kB"
