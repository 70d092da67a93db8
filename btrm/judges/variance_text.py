"""variance.csv and variance.md: the tables of a comparison of prompts."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from btrm.metrics.prompt_choice import Contrast, choice
from btrm.metrics.variance import Histogram

_BARS = " ▁▂▃▄▅▆▇█"
_MEANINGS = {
    "valid_rate": "share of answers that hold a score",
    "accuracy": "pairs that the mean scores order rightly; ties, and pairs with a side without any score, count 1/2",
    "expected_correct": "the same for one answer a side, over all pairs of answers; _strict: a tie counts 0",
    "tie_rate_samples": "answer k of one side scores as answer k of the other; _means: the mean scores are equal",
    "within_std": "mean sample standard deviation of the scores of one response",
    "unique_scores": "different scores a response",
    "wrong_zone": "of wrongly ordered pairs: a side's (both sides') mean score is in the uncertain zone",
    "wrong_extremes": "of wrongly ordered pairs: a side's (both sides') answers reach both ends of that zone",
    "wrong_range_N": "of wrongly ordered pairs: the scores of a side (of both) spread by N at least",
}


@dataclass(frozen=True, slots=True)
class Board:
    """The prompts of one data set side by side."""

    dataset: str
    rows: Sequence[Mapping[str, Any]]
    histograms: Mapping[str, Histogram]
    contrasts: Sequence[Contrast]

    @property
    def choice(self) -> str:
        """Which prompt to take, in a sentence."""
        return choice(self.rows, self.contrasts)

    def records(self) -> list[dict[str, Any]]:
        """Return the rows of variance.csv."""
        return [{"dataset": self.dataset, **row} for row in self.rows]

    def compared(self) -> list[dict[str, Any]]:
        """Return the rows of comparisons.csv."""
        return [{"dataset": self.dataset, "a": c.a, "b": c.b, **asdict(c.result)} for c in self.contrasts]

    def counted(self) -> list[dict[str, Any]]:
        """Return the rows of histograms.csv."""
        return [
            {"dataset": self.dataset, "prompt": name, "low": low, "high": high, "count": count}
            for name, of in self.histograms.items()
            for low, high, count in zip(of.edges, of.edges[1:], of.counts, strict=False)
        ]


def write_table(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records as CSV, their keys brought together as columns; what is not defined is empty."""
    header = list(dict.fromkeys(name for record in records for name in record))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow({name: _text(value, 6) for name, value in record.items()})


def variance_text(boards: Sequence[Board]) -> str:
    """Return variance.md."""
    told = "\n".join(f"- `{name}`: {meaning}" for name, meaning in _MEANINGS.items())
    return "# Prompts\n\n" + "\n".join(_section(board) for board in boards) + f"\n{told}\n"


def _section(board: Board) -> str:
    lines = [f"## {board.dataset}", "", board.choice, "", *_transposed(board.rows), ""]
    if board.contrasts:
        lines += ["Differences of accuracy on the same pairs, 95 % intervals; p adjusted for all of them (Holm):", ""]
        lines += _table(("a less b", "difference", "from", "to", "p"), [_contrast(c) for c in board.contrasts])
        lines.append("")
    lines += ["Scores:", ""]
    lines += [f"    {name:<24} {of.edges[0]:g} {_bars(of)} {of.edges[-1]:g}" for name, of in board.histograms.items()]
    return "\n".join([*lines, ""])


def _contrast(contrast: Contrast) -> list[str]:
    result = contrast.result
    figures = (result.difference, result.low, result.high, result.p_holm)
    return [f"{contrast.a} - {contrast.b}", *(_text(figure, 3) for figure in figures)]


def _transposed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table with a column a prompt: there are more figures than prompts."""
    names = dict.fromkeys(name for row in rows for name in row if name != "prompt")
    body = [[name, *(_text(row.get(name, math.nan), 3) for row in rows)] for name in names]
    return _table(("", *(str(row["prompt"]) for row in rows)), body)


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (header, *body)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *body]
    return ["| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]


def _bars(histogram: Histogram) -> str:
    """Return a bar a bin; the fullest one is full, and one that holds anything is seen."""
    most = max(histogram.counts)
    return "".join(_BARS[math.ceil(8 * count / most) if most else 0] for count in histogram.counts)


def _text(value: Any, digits: int) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.{digits}f}" if digits < 6 else f"{value:.{digits}g}"
    return str(value)
