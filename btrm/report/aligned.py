"""Tables of text that are Markdown and can be read as they are."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(header: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    """Return a table; `left` tells which columns are text, the others stand to the right."""
    widths = [max([len(name), *(len(line[i]) for line in body)]) for i, name in enumerate(header)]
    rule = ["-" * (width + 1) + ("-" if to_left else ":") for width, to_left in zip(widths, left, strict=True)]
    lines = [_line(header, widths, left), f"|{'|'.join(rule)}|"]
    return "\n".join(lines + [_line(cells, widths, left) for cells in body])


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = [c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(cells, widths, left, strict=True)]
    return f"| {' | '.join(padded)} |"
