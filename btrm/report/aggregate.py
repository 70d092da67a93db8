"""Many runs in one table: `btrm summarize DIR...` over a whole cluster's tree, several users' folders and all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import orjson

from btrm.config import ConfigError
from btrm.report.old_logs import read_logs
from btrm.report.own_summary import Own, read_own
from btrm.report.rows import EvalRow, JudgeKey, SummaryRow, key_of, key_order, missing_cells, seeds_interval
from btrm.report.run_files import EVAL, find_runs, run_name
from btrm.report.selection import choose_data_set, choose_row, mark
from btrm.runs import MANIFEST

_READERS = 8  # files at a time: a cluster's file system answers slowly, and many at once
_NEEDED = ("checkpoint", "dataset", "seed", "accuracy", "n_pairs")


@dataclass(frozen=True, slots=True)
class RunCells:
    """A run's evaluated cells; `folder` holds its eval.jsonl, or the logs that they were read from.

    `own` is what its own summary tells of them, by data set and judge.
    """

    name: str
    folder: Path
    evals: list[EvalRow]
    own: Mapping[tuple[str, JudgeKey], Own] = field(default_factory=dict[tuple[str, JudgeKey], Own])


@dataclass(frozen=True, slots=True)
class Aggregated:
    """All runs that could be read, and what was left out, a line each."""

    runs: list[RunCells]
    left_out: list[str]

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return sum(len(run.evals) for run in self.runs)


def read_runs(roots: Sequence[Path]) -> Aggregated:
    """Read every evaluated run below the roots; raise ConfigError where a root is not there, or nothing is below."""
    if absent := [f"{root}: no such folder" for root in roots if not root.is_dir()]:
        raise ConfigError("\n".join(absent))
    found = find_runs(roots)
    top = Path(os.path.commonpath([root.resolve() for root in roots]) if len(roots) > 1 else roots[0])
    with ThreadPoolExecutor(_READERS) as pool:
        read = list(pool.map(_read, found.evaluated))
    runs: list[RunCells] = []
    left_out = list(found.left_out)
    for folder, whole in zip(found.evaluated, read, strict=True):
        if isinstance(whole, str):
            left_out.append(whole)
        else:
            runs.append(replace(whole, name=_name(folder, top, len(roots))))
    for folder, logs in sorted(found.logged.items()):
        old = read_logs(logs)
        left_out += old.unread
        if old.evals:
            name = _name(folder, top, len(roots))
            taken = any(run.name == name for run in runs)  # a run may lie where older logs were left
            runs.append(RunCells(f"{name} (logs)" if taken else name, folder, old.evals))
    if not runs:
        told = "".join(f"\n{line}" for line in left_out)
        where = ", ".join(map(str, roots))
        raise ConfigError(f"{where}: no evaluate/{EVAL} of a complete run below, and no log of an older one{told}")
    return Aggregated(sorted(runs, key=lambda run: run.name), sorted(left_out))


def aggregate_rows(runs: Iterable[RunCells], select_on: str | None = None) -> list[SummaryRow]:
    """Return a row a run, data set and judge, in that order.

    Intervals and differences are those of the run's own summary. Where that has not been made, or is of other numbers,
    there are no differences, and the interval of several seeds is the mean of theirs. `select_on` is a data set that
    some runs may lack.
    """
    return [row for run in runs for row in _run_rows(run, select_on)]


def _run_rows(run: RunCells, select_on: str | None) -> list[SummaryRow]:
    boards: dict[str, dict[JudgeKey, list[EvalRow]]] = {}
    for row in run.evals:
        boards.setdefault(str(row["dataset"]), {}).setdefault(key_of(row), []).append(row)
    selected_on = choose_data_set(boards, select_on if select_on in boards else None)
    rows = [
        _row_of(run, dataset, key, evals, missing)
        for dataset, board in sorted(boards.items())
        for key, evals, missing in _with_missing(board)
    ]
    chosen = choose_row([row for row in rows if row.dataset == selected_on])
    return rows if chosen is None else [replace(row, selected=mark(row, chosen.key, selected_on)) for row in rows]


def _row_of(
    run: RunCells, dataset: str, key: JudgeKey, evals: Sequence[EvalRow], missing: tuple[str, ...]
) -> SummaryRow:
    own = run.own.get((dataset, key)) or Own(seeds_interval(evals, "accuracy"), None, None)
    told = (own.accuracy, own.baseline, own.comparison, missing)
    return SummaryRow(key, dataset, tuple(evals), *told, run=run.name, strict=own.strict)


def _with_missing(board: Mapping[JudgeKey, list[EvalRow]]) -> list[tuple[JudgeKey, list[EvalRow], tuple[str, ...]]]:
    evals = [row for rows in board.values() for row in rows]
    seeds = sorted({int(row["seed"]) for row in evals})
    n_pairs = max(int(row["n_pairs"] or 0) for row in evals)
    return [(key, board[key], missing_cells(board[key], seeds, n_pairs)) for key in sorted(board, key=key_order)]


def _name(folder: Path, top: Path, roots: int) -> str:
    return run_name(folder.resolve() if roots > 1 else folder, top)


def _read(folder: Path) -> RunCells | str:
    """Return the run of an eval.jsonl, without its name, or why there is none."""
    path = folder / EVAL
    if not (folder / MANIFEST).exists():
        return f"{folder}: no {MANIFEST}: not complete, or being redone"
    try:
        text = path.read_bytes()
    except OSError as error:
        return f"{path}: {error.strerror}"
    rows: list[EvalRow] = []
    for number, line in enumerate(text.splitlines(), 1):
        row = _row(line)
        if isinstance(row, str):
            return f"{path}:{number}: {row}"
        rows.append(row)
    return RunCells("", folder, rows, read_own(folder.parent, text)) if rows else f"{path}: empty"


def _row(line: bytes) -> EvalRow | str:
    """Return a line's row, or what is wrong with it; rows of older runs call the data set a split."""
    try:
        loaded = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error.msg}"
    if not isinstance(loaded, dict):
        return f"expected a JSON object, got {type(loaded).__name__}"
    row = cast("dict[str, Any]", loaded)
    if row.get("dataset") is None and "split" in row:
        row["dataset"] = row["split"]
    lacking = [name for name in _NEEDED if name not in row]
    return f"no {', '.join(lacking)} in the row" if lacking else row
