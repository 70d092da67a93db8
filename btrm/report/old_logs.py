"""Logs eval_<checkpoint>_seed<k>.log of older runs, read with some patience: `key: value` and `key = value`.

Rates may be percentages; ties and unparsed answers may be counted, where the log tells of how many. A later line wins,
for such logs tell running values before the last. `dataset: NAME` begins a data set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btrm.report.old_log_names import COUNTS, RATES, log_name
from btrm.report.rows import EvalRow
from btrm.report.run_files import OLD_LOG

_NUMBER = r"[-+]?(?:\d[\d,_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)\b"
_ITEM = re.compile(
    rf"['\"]?(?P<key>[A-Za-z][A-Za-z0-9_ /@().%-]*?)['\"]?\s*[:=]\s*['\"]?(?P<value>{_NUMBER})(?P<percent>\s*%)?"
    r"(?:\s*[\[(]\s*(?P<low>[-+]?\d*\.?\d+)\s*%?\s*,\s*(?P<high>[-+]?\d*\.?\d+)\s*%?\s*[\])])?",
    re.IGNORECASE,
)
_TEXT = re.compile(
    r"(?:^|\W)(?P<key>data_?set|split|prompt(?:_style|_name)?|method)\s*[:=]\s*['\"]?(?P<value>[\w./@-]+)", re.I
)
_NOTHING = frozenset({"none", "null", "n/a", "-", "wrong", "tie", "drop"})  # the last three: how unparsed pairs count
_EXPLAINED = re.compile(r"\([^()]*\)(?=\s*[:=])")
_BARE = re.compile(r"^\W*(?P<key>[A-Za-z][A-Za-z0-9_ /-]*?)\s*[:=]\s*(?P<value>\S+)\s*$")


@dataclass(frozen=True, slots=True)
class OldLogs:
    """Rows as of eval.jsonl, one a cell, and what could not be read, as file:line."""

    evals: list[EvalRow]
    unread: list[str]


def read_logs(paths: Sequence[Path]) -> OldLogs:
    """Read logs of one folder; a file without an accuracy gives no row, and is told."""
    evals: list[EvalRow] = []
    unread: list[str] = []
    for path in paths:
        match = OLD_LOG.match(path.name)
        assert match is not None, path
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            unread.append(f"{path}: {error.strerror}")
            continue
        cells, problems = _cells(text)
        unread += [f"{path}:{line}: {problem}" for line, problem in problems]
        told = [cell for cell in cells if cell.get("accuracy") is not None]
        if not told:
            unread.append(f"{path}: no accuracy in it")
        whose = {"checkpoint": match["checkpoint"], "seed": int(match["seed"])}
        evals += [{"prompt": "", "method": "", "dataset": "test", **cell, **whose} for cell in told]
    return OldLogs(evals, unread)


def _cells(text: str) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    cells: list[dict[str, Any]] = [{}]
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        for key, value in _texts(line):
            if key == "dataset" and cells[-1].get("accuracy") is not None and cells[-1].get(key) != value:
                cells.append({name: cells[-1][name] for name in ("prompt", "method") if name in cells[-1]})
            cells[-1][key] = value
        found = dict(_items(line))
        cells[-1].update(found)
        if (
            not found
            and (bare := _BARE.match(line))
            and log_name(bare["key"])
            and bare["value"].lower() not in {"none", "n/a"}
        ):
            problems.append((number, f"{bare['key']}: no number: {bare['value']!r}"))
    return [_derived(cell) for cell in cells], problems


def _texts(line: str) -> Iterator[tuple[str, str]]:
    for match in _TEXT.finditer(line):
        key = match["key"].lower().replace("_", "")
        name = "dataset" if key in {"dataset", "split"} else "method" if key == "method" else "prompt"
        yield name, match["value"]


def _items(line: str) -> Iterator[tuple[str, float | int | None]]:
    """Yield (our name, value) of what a line tells; rates in percent become shares, nan is None."""
    for match in _ITEM.finditer(_EXPLAINED.sub("", line)):
        name = log_name(match["key"])
        if name is None:
            continue
        percent = match["percent"] is not None
        yield name, _number(name, match["value"], percent)
        if match["low"] is not None:
            yield f"{name}_low", _number(name, match["low"], percent)
            yield f"{name}_high", _number(name, match["high"], percent)


def _number(name: str, text: str, percent: bool) -> float | int | None:
    value = float(text.replace(",", "").replace("_", ""))
    if value != value:
        return None
    if name in COUNTS:
        return int(value)
    return value / 100 if name in RATES and (percent or 1 < value <= 100) else value


def _derived(cell: dict[str, Any]) -> dict[str, Any]:
    """Fill in what a log tells in another way, and how many pairs there are: 0 where it does not tell."""
    n_pairs, answers = cell.get("n_pairs") or 0, cell.get("n_judgements") or 0
    counted = (("tie_rate", "n_ties", n_pairs), ("unparsed_rate", "n_unparsed", answers))
    for rate, count, of in counted:
        told = cell.pop(count, None)
        if told is not None and of and rate not in cell:
            cell[rate] = told / of
    valid = cell.pop("valid_rate", None)
    if valid is not None:
        cell.setdefault("unparsed_rate", 1 - valid)
    return {**cell, "n_pairs": n_pairs}
