"""Inline SVG by hand: a plot is a box with two linear axes and a list of marks whose looks are CSS classes.

Hand-made, because a page holds hundreds of small panels: one takes 2 KB and a fraction of a millisecond, its colours
follow the page (dark, light, print), and its text stays text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from btrm.report.page.values import minus

Point = tuple[float, float]


class Svg(str):
    """Markup that a template takes as it is: everything in it that came from data has been escaped."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return itself, as templates ask for it."""
        return self


@dataclass(frozen=True, slots=True)
class Frame:
    """The ranges of the data (x and y, low to high) and the pixels that they are drawn on."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = 320
    height: float = 220
    left: float = 56
    right: float = 12
    top: float = 12
    bottom: float = 40

    def at(self, x: float, y: float) -> Point:
        """Return the pixel of a point, kept inside the box."""
        across, up = _share(x, self.x), _share(y, self.y)
        return (
            self.left + across * (self.width - self.left - self.right),
            self.height - self.bottom - up * (self.height - self.top - self.bottom),
        )


def _share(value: float, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers inside [low, high], `about` so many of them."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) + 0.0 for n in range(first, last + 1)]


def plain(value: float) -> str:
    """Write a tick: no more digits than it needs."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
    return minus(text)


class Plot:
    """Collects marks, then writes one <svg> whose `label` says in words what it shows."""

    def __init__(self, frame: Frame, label: str) -> None:
        self.frame = frame
        self._label = label
        self._marks: list[str] = []

    def axes(
        self,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[float] | None = None,
    ) -> None:
        """Draw the grid's lines across, ticks and what the axes mean."""
        f = self.frame
        foot = f.height - f.bottom
        across = [(f.at(value, f.y[0])[0], value) for value in (nice_ticks(*f.x) if x_ticks is None else x_ticks)]
        upward = [(f.at(f.x[0], value)[1], value) for value in nice_ticks(*f.y)]
        grid = "".join(f"M{f.left:g} {_px(y)}H{f.width - f.right:g}" for y, _ in upward)
        ticks = "".join(f"M{_px(x)} {foot:g}v4" for x, _ in across)
        self._marks.append(f'<path class="grid" d="{grid}"/><path class="axis" d="{ticks}M{f.left:g} {foot:g}')
        self._marks.append(f'H{f.width - f.right:g}"/><g text-anchor="end">')
        self._marks += [f'<text x="{f.left - 6:g}" y="{_px(y + 4)}">{plain(value)}</text>' for y, value in upward]
        self._marks.append('</g><g text-anchor="middle">')
        self._marks += [f'<text x="{_px(x)}" y="{foot + 16:g}">{plain(value)}</text>' for x, value in across]
        middle, center = (f.top + foot) / 2, (f.left + f.width - f.right) / 2
        self._marks.append(f'<text class="name" x="{center:g}" y="{f.height - 6:g}">{escape(x_label)}</text>')
        turned = f'transform="translate(10 {middle:g}) rotate(-90)"'
        self._marks.append(f'<text class="name" {turned}>{escape(y_label)}</text></g>')

    def line(self, points: Iterable[Point], look: str) -> None:
        """Draw a polyline; points that are not numbers break it."""
        for piece in _unbroken(points):
            self._marks.append(f'<path class="line {look}" d="{self._through(piece)}"/>')

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], look: str) -> None:
        """Fill the space between two curves, where both are numbers."""
        known = [p for p in zip(x, low, high, strict=True) if all(map(math.isfinite, p))]
        if len(known) > 1:
            around = [(a, h) for a, _, h in known] + [(a, low_) for a, low_, _ in reversed(known)]
            self._marks.append(f'<path class="band {look}" d="{self._through(around)}Z"/>')

    def whisker(self, x: float, low: float, high: float, look: str, shift: float = 0) -> None:
        """Draw an interval upright, `shift` pixels to the right."""
        if math.isfinite(low) and math.isfinite(high):
            (across, foot), (_, head) = self.frame.at(x, low), self.frame.at(x, high)
            self._marks.append(f'<path class="whisker {look}" d="M{_px(across + shift)} {_px(foot)}V{_px(head)}"/>')

    def dot(self, x: float, y: float, look: str, radius: float = 3, tip: str = "") -> None:
        """Draw a point; `tip` is what it says under the pointer."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return
        cx, cy = self.frame.at(x, y)
        title = f"<title>{escape(tip)}</title>" if tip else ""
        self._marks.append(
            f'<circle class="dot {look}" cx="{_px(cx)}" cy="{_px(cy)}" r="{_px(radius)}">{title}</circle>'
        )

    def bars(self, edges: Sequence[float], counts: Sequence[float], look: str) -> None:
        """Fill a histogram: one closed outline around the bins from the first full one to the last."""
        full = [place for place, count in enumerate(counts) if count]
        if not full:
            return
        first, last = full[0], full[-1] + 1
        start, foot = self.frame.at(edges[first], 0.0)
        steps = (self.frame.at(edges[place + 1], counts[place]) for place in range(first, last))
        outline = "".join(f"V{_px(y)}H{_px(x)}" for x, y in steps)
        self._marks.append(f'<path class="bars {look}" d="M{_px(start)} {_px(foot)}{outline}V{_px(foot)}Z"/>')

    def note(self, x: float, y: float, text: str, anchor: str = "start", look: str = "note", shift: float = 0) -> None:
        """Write a label at a point of the data, `shift` pixels lower."""
        px, py = self.frame.at(x, y)
        self._text(px, py + shift, text, anchor, look)

    def svg(self, look: str = "plot") -> Svg:
        """Return the picture; one that says nothing is an ornament, which is not read aloud."""
        f = self.frame
        said = f'role="img" aria-label="{escape(self._label)}"' if self._label else 'aria-hidden="true"'
        head = f'<svg class="{look}" viewBox="0 0 {f.width:g} {f.height:g}" {said}>'
        return Svg(f"{head}{''.join(self._marks)}</svg>")

    def _through(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{_px(x)} {_px(y)}" for x, y in (self.frame.at(*point) for point in points))

    def _text(self, x: float, y: float, text: str, anchor: str, look: str = "") -> None:
        kind = f' class="{look}"' if look else ""
        self._marks.append(f'<text{kind} x="{_px(x)}" y="{_px(y)}" text-anchor="{anchor}">{escape(text)}</text>')


def _px(value: float) -> str:
    """Write a pixel, to a tenth of it."""
    return f"{value:.1f}".removesuffix(".0")


def _unbroken(points: Iterable[Point]) -> list[list[Point]]:
    pieces: list[list[Point]] = [[]]
    for point in points:
        if all(map(math.isfinite, point)):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if len(piece) > 1]
