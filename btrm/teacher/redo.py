"""Answers that are asked again: forgotten, not removed, since they were paid for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import orjson

from btrm.config import ConfigError, nearest
from btrm.judges.cells import parts_by_cell
from btrm.locks import exclusive
from btrm.prompts import get_prompt
from btrm.publishing import replace
from btrm.records import read_judgements
from btrm.runs import MANIFEST, read_request
from btrm.scores import Outcome, Scale
from btrm.teacher.claims import CALLS, SHARES, live_jobs
from btrm.teacher.config import TeacherConfig
from btrm.teacher.journal import FORGOTTEN, Forgotten, forgotten, journals, read_journal
from btrm.teacher.reading import verdicts
from btrm.teacher.stage import PARTS

if TYPE_CHECKING:
    import pyarrow as pa

_ALSO = {"malformed": Outcome.UNPARSED}
# Forgetting good answers is allowed, and nothing that a slip of the pen should lead to.
_OFFERED = [*(str(outcome) for outcome in Outcome if outcome != Outcome.SCORED), *_ALSO]


def redo(directory: Path, outcomes: Sequence[str]) -> int:
    """Forget a teacher's answers with these outcomes, so that a rerun asks for them again; return how many.

    The journals stay, and with them what was spent. Killed anywhere, it can be called again: what says that the work is
    done goes first, and the answers count until the last step. Raises ConfigError for what is no teacher's directory,
    for an unknown outcome, where someone works, and where rows would be lost.
    """
    scale = _scale(directory)
    names = [_ALSO.get(name, name) for name in outcomes]
    if wrong := [name for name in names if name not in set(Outcome)]:
        raise ConfigError("; ".join(f"no such outcome as {name}{nearest(name, _OFFERED)}" for name in wrong))
    if jobs := live_jobs(directory / SHARES):
        raise ConfigError(f"{directory}: {', '.join(jobs)} is working here; wait for it, or `btrm cancel` it")
    with exclusive(directory):
        return _forget(directory, set(names), scale)


def _forget(directory: Path, outcomes: set[str], scale: Scale) -> int:
    before = forgotten(directory / CALLS)
    found = {key: pair for key, pair in _with_outcomes(directory / CALLS, outcomes, scale) if key not in before}
    if not found:
        return 0
    parts = _parts_with(directory, set(found.values()))
    (directory / MANIFEST).unlink(missing_ok=True)
    for part in parts:
        part.unlink(missing_ok=True)
    scratch = directory / CALLS / f".{FORGOTTEN}"
    scratch.write_bytes(b"".join(orjson.dumps(key) + b"\n" for key in sorted(before | found.keys())))
    replace(scratch, directory / CALLS / FORGOTTEN)
    return len(found)


def _scale(directory: Path) -> Scale:
    request = read_request(directory)
    if request is None or request.stage != "teacher":
        raise ConfigError(f"{directory}: not a teacher's directory ({request.stage if request else 'no stage.json'})")
    return get_prompt(TeacherConfig.build(request.config).prompt).scale


def _with_outcomes(calls: Path, outcomes: set[str], scale: Scale) -> Iterator[tuple[Forgotten, str]]:
    """Yield the rows of answers with these outcomes, each with its pair_id."""
    for path in journals(calls):
        for entry in read_journal(path):
            for item, key, verdict in zip(entry.items, entry.keys, verdicts(entry, scale), strict=True):
                if verdict.score.outcome in outcomes:
                    yield (entry.request_hash, entry.at, *key), item.pair_id


def _parts_with(directory: Path, pairs: set[str]) -> list[Path]:
    """Return the parts that hold any label of these pairs. Raises ConfigError for rows that no journal has any more."""
    entries = (entry for path in journals(directory / CALLS) for entry in read_journal(path))
    known = {(item.pair_id, item.side, entry.sample) for entry in entries for item in entry.items}
    found: list[Path] = []
    for part in (part for parts in parts_by_cell(directory / PARTS).values() for part in parts):
        keys = _keys(read_judgements(part.path, ["pair_id", "side", "sample"]))
        if not pairs.intersection(pair for pair, _, _ in keys):
            continue
        if lost := keys - known:
            raise ConfigError(f"{part.path}: {len(lost)} of its rows are in no journal; put back what was in {CALLS}/")
        found.append(part.path)
    return found


def _keys(table: pa.Table) -> set[tuple[str, int, int]]:
    columns = [table[name].to_pylist() for name in ("pair_id", "side", "sample")]
    return set(cast("zip[tuple[str, int, int]]", zip(*columns, strict=True)))
