"""Runs compared with one of them, on the pairs that both judged."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from btrm.config import ConfigError, nearest
from btrm.metrics.decisions import Comparison, adjusted, compare_all
from btrm.metrics.judged import JudgedCell, read_cells
from btrm.report.aggregate import RunCells
from btrm.report.boards import Board, read_boards
from btrm.report.own_summary import undefined
from btrm.report.rows import EvalRow, JudgeKey, SummaryRow
from btrm.runs import RunPaths, read_manifest

_LOG = logging.getLogger(__name__)
_RESAMPLES = 2000
_MINE = "\0"  # goes before a checkpoint of the baseline's run while both stand on one board


def compare_runs(runs: Sequence[RunCells], rows: Sequence[SummaryRow], wanted: str) -> list[SummaryRow]:
    """Compare all rows with those of a run, RUN, or with one checkpoint of it, RUN:CHECKPOINT, data set by data set.

    With RUN a checkpoint is compared with the one that has its name, prompt and method there. Where judgements are not
    there any more, the difference has no interval. Raises ConfigError for a run or a checkpoint that is not there.
    """
    base, checkpoint = _baseline(runs, wanted)
    rows = [replace(row, baseline=None, comparison=None) for row in rows]  # what a run compared itself with
    of_base = {(row.dataset, row.key): row for row in rows if row.run == base.name}
    found: list[SummaryRow] = []
    base_cells = _cells(base)
    for run in runs:
        mine = [row for row in rows if row.run == run.name]
        pairs = [(row, _partner(row, base, checkpoint, of_base)) for row in mine]
        boards = _boards(run, base, base_cells) if run is not base and any(p for _, p in pairs) else {}
        found += [_compared(row, partner, boards.get(row.dataset), base.name) for row, partner in pairs]
    results = adjusted([row.comparison for row in found if row.comparison is not None])
    left = iter(results)
    return [row if row.comparison is None else replace(row, comparison=next(left)) for row in found]


def _baseline(runs: Sequence[RunCells], wanted: str) -> tuple[RunCells, str | None]:
    named = {run.name: run for run in runs}
    if found := _run(named, wanted):
        return found, None
    name, colon, checkpoint = wanted.rpartition(":")
    base = _run(named, name) if colon else None
    if base is None:
        raise ConfigError(f"--baseline {wanted!r}: no such run{nearest(name if colon else wanted, named)}")
    known = {str(row["checkpoint"]) for row in base.evals}
    if checkpoint not in known:
        raise ConfigError(f"--baseline {wanted!r}: no such checkpoint in {base.name}{nearest(checkpoint, known)}")
    return base, checkpoint


def _run(named: Mapping[str, RunCells], wanted: str) -> RunCells | None:
    """Return the run of this name, or at this path: a shell completes paths."""
    path = Path(wanted).expanduser().resolve()
    at_path = (run for run in named.values() if path in (run.folder.resolve(), run.folder.resolve().parent))
    return named.get(wanted) or next(at_path, None)


def _partner(
    row: SummaryRow, base: RunCells, checkpoint: str | None, of_base: Mapping[tuple[str, JudgeKey], SummaryRow]
) -> SummaryRow | None:
    """Return the baseline's row that a row is compared with; none with itself."""
    partner = of_base.get((row.dataset, row.key._replace(checkpoint=checkpoint or row.checkpoint)))
    return None if partner is None or (row.run == base.name and partner.key == row.key) else partner


def _compared(row: SummaryRow, partner: SummaryRow | None, board: Board | None, base: str) -> SummaryRow:
    if partner is None:
        return row
    named = f"{base}:{partner.checkpoint}"
    result = _paired(row.key, partner.key._replace(checkpoint=_MINE + partner.checkpoint), board)
    return replace(row, baseline=named, comparison=result or undefined(row.mean("accuracy") - partner.mean("accuracy")))


def _paired(a: JudgeKey, b: JudgeKey, board: Board | None) -> Comparison | None:
    if board is None or a not in board.credits or b not in board.credits:
        return None
    result = compare_all([board.credits[a], board.credits[b]], [(0, 1)], board.cluster_P, _RESAMPLES)[0]
    return result if result.n_pairs else None


def _boards(run: RunCells, base: RunCells, base_cells: Sequence[JudgedCell]) -> dict[str, Board]:
    """Return the boards of a run and the baseline's together; clusters are those of the baseline's file."""
    cells = _cells(run) if base_cells else []
    if not cells:
        return {}
    evals = [*run.evals, *_renamed(base.evals)]
    mine = [replace(cell, judge=_MINE + cell.judge) for cell in base_cells]
    return {board.dataset: board for board in read_boards(evals, [*cells, *mine])}


def _renamed(evals: Sequence[EvalRow]) -> Iterator[EvalRow]:
    return ({**row, "checkpoint": f"{_MINE}{row['checkpoint']}"} for row in evals)


def _cells(run: RunCells) -> list[JudgedCell]:
    """Return a run's judgements as cells, nothing where they cannot be read: the log tells why."""
    try:
        manifest = read_manifest(run.folder)
        if manifest is None:
            return []
        judgements, pairs = (_input(manifest.config.get(name), run.folder.parent) for name in ("judgements", "pairs"))
        return read_cells(judgements, pairs) if judgements is not None else []
    except (OSError, ValueError) as error:
        _LOG.warning("%s: compared without an interval: %s", run.name, error)
        return []


def _input(reference: str | None, root: Path) -> Path | None:
    path = RunPaths(root).resolve(reference) if reference else None
    return path if path is not None and path.exists() else None
