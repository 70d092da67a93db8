"""report.html: one file that opens in a browser, without a network."""

from __future__ import annotations

from pathlib import Path

from btrm.report.report_input import ReportInput

_PAGE = Path(__file__).parent / "page"


def write_report(path: Path, title: str, tables: ReportInput) -> None:
    """Write the page; atomicity is the caller's (runs.replace). All text in the tables is data: it is escaped."""
    path.write_text(render_report(title, tables), encoding="utf-8", errors="replace")


def render_report(title: str, tables: ReportInput) -> str:
    """Return the page's HTML."""
    import jinja2

    loader = jinja2.FileSystemLoader(_PAGE)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("report.html").render(title=title, tables=tables)
