"""`eval`: judge, then evaluate, then summarize, as one command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from btrm.config import ConfigError, flat_fields, nearest, published_name
from btrm.stage_table import get_stage

EVAL = "eval"
EVAL_STEPS = ("judge", "evaluate", "summarize")
# Flags that go to the later steps; judge's own are all there. Others: --set STEP.field=value.
LATER: Mapping[str, tuple[str, ...]] = {
    "evaluate": ("bt_temp", "unc_low", "unc_high", "report_margins", "report_uncertainty", "unparsed"),
    "summarize": ("baseline", "select_on", "columns", "sort"),
}


def routed(assignments: Sequence[str]) -> dict[str, list[str]]:
    """Return {step: assignments}: `STEP.field=value`, or `field=value` for the first step that has the field."""
    found: dict[str, list[str]] = {step: [] for step in EVAL_STEPS}
    problems: list[str] = []
    for assignment in assignments:
        name = assignment.partition("=")[0]
        head, dot, _ = name.partition(".")
        if dot and head in found:
            found[head].append(assignment.removeprefix(f"{head}."))
        elif owners := [step for step in EVAL_STEPS if name.replace("-", "_") in _names(step)]:
            found[owners[0]].append(assignment)
        else:
            valid = [f"{step}.{field}" for step in EVAL_STEPS for field in flat_fields(get_stage(step).config)]
            problems.append(f"--set {name}: no such field{nearest(name, valid)}")
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _names(step: str) -> set[str]:
    known = flat_fields(get_stage(step).config)
    return {*known, *(alias for info in known.values() if (alias := published_name(info)))}
