"""How many answers came to what, a prompt that left no room told apart from an answer that ran out of it."""

from __future__ import annotations

from pathlib import Path

from btrm.records import read_judgements

TOO_LONG = "prompt_too_long"


def count_outcomes(judgements: Path) -> dict[str, int]:
    """Return {outcome: answers}, the most frequent first; `prompt_too_long` is apart from `truncated`."""
    table = read_judgements(judgements, ["outcome", "finish_reason"])
    counts: dict[str, int] = {}
    for row in table.group_by(["outcome", "finish_reason"]).aggregate([([], "count_all")]).to_pylist():
        name = TOO_LONG if row["finish_reason"] == TOO_LONG else row["outcome"]
        counts[name] = counts.get(name, 0) + row["count_all"]
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
