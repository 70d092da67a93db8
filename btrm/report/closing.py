"""What a finished run says on the terminal: the table, before and after, the best; which prompt to take; the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from btrm.report.columns import format_table
from btrm.report.selection import is_optimistic
from btrm.report.tables import read_summary
from btrm.runs import RunPaths, read_manifest

_FILES = ("report.html", "summary.csv", "summary.md", "summary_long.csv", "comparisons.csv", "learning_curve.png")
_NO_BEST = "none is named: fewer than two checkpoints have an accuracy, or --select-on NAME must tell the data set"


def ending(root: Path, stage: str, name: str) -> str:
    """Return what a run says whose last step was this one: by its stage, and by the name of its directory."""
    if stage == "summarize":
        return f"\n{closing(root)}"
    if stage == "variance":
        return f"\n{_chosen_prompts(RunPaths(root).stage(name))}"
    return f"{root}: done. See: btrm show {root}"


def _chosen_prompts(directory: Path) -> str:
    """Say of each data set which prompt to take, and where the figures are."""
    manifest = read_manifest(directory)
    assert manifest is not None
    choices: Mapping[str, str] = manifest.results["choice"]
    told = [f"on {dataset}: {said}" for dataset, said in choices.items()]
    return "\n".join([*told, f"every figure: {directory / 'variance.md'}"])


def closing(root: Path) -> str:
    """Return the summary's table, accuracies before and after training with their intervals, and the files."""
    rows = read_summary(root / "summary.csv")
    manifest = read_manifest(root / "summarize")
    lines = [format_table(rows, manifest.config.get("columns", ()) if manifest else ()), ""]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        mine = [row for row in rows if row["dataset"] == dataset]
        baselines = {row["baseline"] for row in mine}
        before = next((row for row in mine if row["checkpoint"] in baselines), mine[0])
        last = max(reversed(mine), key=lambda row: int(row["step"] or -1))
        lines.append(f"accuracy on {dataset}, 95 % intervals over contexts:")
        lines.append(f"  before  {_accuracy(before)}{_beware(before)}")
        if last is not before:
            lines.append(f"  after   {_accuracy(last)}{_difference(last)}{_beware(last)}")
    if manifest is not None:
        lines += ["", f"best: {manifest.results.get('best', _NO_BEST)}"]
    lines += ["", *(f"{root / name}" for name in _FILES if (root / name).exists())]
    return "\n".join(
        [*lines, f"every judgement: {root / 'judge/judgements.parquet'}; check it all: btrm verify {root}"]
    )


def _accuracy(row: Mapping[str, str]) -> str:
    value = f"{float(row['accuracy']):.3f}" if row["accuracy"] else "not defined"
    return f"{row['checkpoint']:<16}{value}{_interval(row, 'accuracy', '')}"


def _difference(row: Mapping[str, str]) -> str:
    if not row["difference"]:
        return ""
    return f"   difference {float(row['difference']):+.3f}{_interval(row, 'difference', '+')}"


def _beware(row: Mapping[str, str]) -> str:
    return f"   ({row['selected']})" if is_optimistic(row) else ""


def _interval(row: Mapping[str, str], metric: str, sign: str) -> str:
    """Write an interval; nothing where it is not defined: no pair has a credit, or all lie in one context."""
    ends = [row[f"{metric}_{end}"] for end in ("low", "high")]
    return f"  [{', '.join(f'{float(end):{sign}.3f}' for end in ends)}]" if all(ends) else ""
