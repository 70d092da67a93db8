"""What a finished run says on the terminal: the table, before and after, and where everything lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from btrm.report.columns import format_table, read_summary


def closing(root: Path) -> str:
    """Return the summary's table, the accuracy before and after training with its interval, and the files."""
    rows = read_summary(root / "summary.csv")
    lines = [format_table(rows), ""]
    for split in dict.fromkeys(row["split"] for row in rows):
        mine = [row for row in rows if row["split"] == split]
        baselines = {row["baseline"] for row in mine}
        before = next((row for row in mine if row["checkpoint"] in baselines), mine[0])
        lines.append(f"accuracy on the {split} split, 95 % intervals over pairs:")
        lines.append(f"  before  {_accuracy(before)}")
        lines.append(f"  after   {_accuracy(mine[-1])}{_difference(mine[-1])}")
    named = ("summary.csv", "summary.md", "summary_long.csv", "learning_curve.png")
    lines += ["", *(f"{root / name}" for name in named if (root / name).exists())]
    return "\n".join(
        [*lines, f"every judgement: {root / 'judge/judgements.parquet'}; check it all: btrm verify {root}"]
    )


def _accuracy(row: Mapping[str, str]) -> str:
    low, high = float(row["accuracy_low"]), float(row["accuracy_high"])
    return f"{row['checkpoint']:<16}{float(row['accuracy']):.3f}  [{low:.3f}, {high:.3f}]"


def _difference(row: Mapping[str, str]) -> str:
    if not row["difference"]:
        return ""
    low, high = float(row["difference_low"]), float(row["difference_high"])
    return f"   difference {float(row['difference']):+.3f}  [{low:+.3f}, {high:+.3f}]"
