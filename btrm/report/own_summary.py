"""What a run's own `summarize` has found: intervals over pairs and comparisons, which eval.jsonl alone cannot tell."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from btrm.metrics.bootstrap import Interval
from btrm.metrics.decisions import Comparison
from btrm.report.rows import JudgeKey
from btrm.runs import MANIFEST

_FOLDER, _FILE, _EVAL = "summarize", "summary.csv", "@evaluate/eval.jsonl"


@dataclass(frozen=True, slots=True)
class Own:
    """A judge's accuracy and its comparison with the run's baseline, where there is one."""

    accuracy: Interval
    baseline: str | None
    comparison: Comparison | None
    strict: Interval | None = None


def read_own(run: Path, evaluated: bytes) -> dict[tuple[str, JudgeKey], Own]:
    """Return {(data set, judge): what summarize found} of these very bytes of eval.jsonl; nothing where it did not."""
    try:
        manifest: Any = orjson.loads((run / _FOLDER / MANIFEST).read_bytes())
        if manifest["inputs"][_EVAL] != hashlib.sha256(evaluated).hexdigest():
            return {}
        text = (run / _FOLDER / _FILE).read_text(encoding="utf-8")
        return {_key(row): _own(row) for row in csv.DictReader(io.StringIO(text))}
    except (OSError, ValueError, KeyError, TypeError):  # absent, older, or broken: eval.jsonl is enough
        return {}


def undefined(difference: float, **told: float) -> Comparison:
    """Return a comparison of which little more is known than its difference."""
    counts = dict.fromkeys(("n_pairs", "n_clusters", "seeds_a", "seeds_b", "wins", "losses"), 0)
    numbers = ("low", "high", "p_bootstrap", "p_mcnemar", "p_mcnemar_exact", "mde", "pairs_needed", "seeds_needed")
    known: dict[str, Any] = {**counts, **dict.fromkeys(numbers, math.nan), **told, "difference": difference}
    return Comparison(**known)


def _key(row: Mapping[str, str]) -> tuple[str, JudgeKey]:
    return row["dataset"], JudgeKey(row["checkpoint"], row["prompt"], row["method"])


def _own(row: Mapping[str, str]) -> Own:
    accuracy = Interval(_number(row["accuracy_low"]), _number(row["accuracy_high"]))
    strict = Interval(_number(row["strict_accuracy_low"]), _number(row["strict_accuracy_high"]))
    if not row["baseline"]:
        return Own(accuracy, None, None, strict)
    names = {"low": "difference_low", "high": "difference_high", "p_bootstrap": "p_value"}
    names |= {name: name for name in ("p_holm", "p_mcnemar", "mde", "pairs_needed", "seeds_needed")}
    told = {field: _number(row[name]) for field, name in names.items()}
    return Own(accuracy, row["baseline"], undefined(_number(row["difference"]), **told), strict)


def _number(text: str) -> float:
    return float(text) if text else math.nan
