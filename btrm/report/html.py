"""report.html: one file that opens in a browser, without a network."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from btrm.report.report_input import ReportInput

_PAGE = Path(__file__).parent / "page"


def write_report(path: Path, title: str, tables: ReportInput) -> None:
    """Write the page; atomicity is the caller's (publishing). What tables hold is data: all of it is escaped."""
    path.write_text(render_report(title, tables), encoding="utf-8", errors="replace")


def render_report(title: str, tables: ReportInput) -> str:
    """Return the page's HTML. Its policy lets the browser run this page's script and nothing else, and load nothing."""
    import jinja2
    from markupsafe import Markup

    from btrm.report.page.parts import page_parts

    style, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html").render(
        title=title,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        **page_parts(tables),
    )


def _hash(text: str) -> str:
    """Return the name under which a content security policy knows an inline text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
