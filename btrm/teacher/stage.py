"""The `teacher` stage: pairs in, a teacher's judgements out, in the form that its student should learn."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from functools import partial
from pathlib import Path

from btrm.config import ConfigError
from btrm.judges.base import Sampling
from btrm.judges.cells import Cell
from btrm.judges.checkpoints import find_model
from btrm.judges.numbered import Pairs, read_labels, read_numbered
from btrm.judges.pair_sets import PairSets
from btrm.judges.rebuild import rebuild
from btrm.progress import progress
from btrm.prompts import get_prompt
from btrm.records import read_judgements
from btrm.runs import StageError, StageResult, StageRun
from btrm.stopping import listening_to_interrupts, safe_point
from btrm.teacher.asking import check_calls, open_asker
from btrm.teacher.base import HaltedError, HaltError, RowKey
from btrm.teacher.batch import MakeCalls, ask_in_batches
from btrm.teacher.batch_files import BatchFiles
from btrm.teacher.check import check_settings, check_start
from btrm.teacher.claims import CALLS, SHARES, claimed
from btrm.teacher.config import TeacherConfig
from btrm.teacher.forecast import Measured, forecast
from btrm.teacher.journal import Entry, Journal, earlier, forgotten, journals, read_journal, repair
from btrm.teacher.layouts import make_calls
from btrm.teacher.prices import price_of
from btrm.teacher.rows import Owed
from btrm.teacher.spending import spending
from btrm.work import Unit

_LOG = logging.getLogger(__name__)
PARTS, BATCHES = "parts", "batches"


def check_teacher(config: TeacherConfig, run: StageRun) -> None:
    """Refuse what can be refused before anybody is asked."""
    check_start(config, run, run.dir / CALLS)


def check_teacher_settings(config: TeacherConfig, run: StageRun) -> None:
    """Refuse what no inputs could mend."""
    check_settings(config, run)


def work_teacher(config: TeacherConfig, run: StageRun) -> list[Unit]:
    """Return the pairs that are not judged yet, numbered after skip_pairs, as one unit."""
    return PairSets({None: _pairs(config, run)}).missing_units(run.dir / PARTS, [cell_of(config, run)])


def share_teacher(config: TeacherConfig, run: StageRun, units: Sequence[Unit]) -> Iterator[int]:
    """Judge these pairs where they are still missing; yield how many are safe on disk now, at least once a second.

    Raises HaltedError where the API or the budget lets nobody go on.
    """
    cell, pairs = cell_of(config, run), _pairs(config, run)
    todo = PairSets({None: pairs}).still_missing(run.dir / PARTS, [cell], units)
    if not todo:
        return
    records = read_numbered(run.input(config.pairs), [holes for _, holes in todo], config.skip_pairs)
    owed = Owed(cell, pairs, records, config.part_pairs)
    with claimed(run, units) as journal:
        try:
            without = forgotten(run.dir / CALLS)
            for path in journals(run.dir / CALLS):
                yield sum(owed.fill(entry, without) for entry in read_journal(path))
            make = partial(make_calls, config, records, earlier=earlier(without))
            for entries in _ask(config, run, journal, make, owed.missing()):
                done = sum(owed.fill(entry) for entry in entries)
                owed.write_parts(run, run.dir / PARTS)
                yield done
                safe_point()
        finally:
            owed.write_rest(run, run.dir / PARTS)


def _ask(
    config: TeacherConfig, run: StageRun, journal: Journal, make: MakeCalls, missing: Iterator[RowKey]
) -> Iterator[list[Entry]]:
    """Run the asking in this thread, as far as its results are wanted."""
    keys = list(missing)
    files = BatchFiles(run, run.dir / CALLS / BATCHES, run.dir / SHARES, _share_of(journal))
    if config.mode == "direct":
        _refuse_in_batches(files, keys)
    check_calls(config, make(keys))
    with listening_to_interrupts(), asyncio.Runner() as runner:
        asker = runner.run(open_asker(config, run, journal))
        if config.mode == "batch":
            answers = ask_in_batches(config, run, asker, files, make, keys)
        else:
            answers = asker.run(make(keys))
        try:
            while (entries := runner.run(_next(answers))) is not None:
                yield entries
        except HaltError as error:
            told = str(error).rstrip(".")
            raise HaltedError(f"{error.cause}: {told}; what is answered is on disk, a rerun goes on") from None
        finally:
            runner.run(answers.aclose())
            runner.run(asker.close())


def _refuse_in_batches(files: BatchFiles, owing: Sequence[RowKey]) -> None:
    """Raise ConfigError where answers that are owed may come in batches, which are paid for."""
    owed = set(owing)
    held: dict[str, int] = {}
    for batch in files.batches():
        fate = files.fate(batch)
        if fate is None or fate.id is not None:
            count = sum(not owed.isdisjoint(asked.keys) for asked in batch.asked)
            held |= {(fate and fate.id) or f"{batch.name}, perhaps sent": count} if count else {}
    if held:
        told = "; ".join(f"{count} in {batch_id}" for batch_id, count in held.items())
        raise ConfigError(
            f"mode direct: calls that are owed are in batches ({told}) and would be paid for twice: collect them with "
            f"--mode batch; to pay again for what never came of them, move {files.directory} away"
        )


async def _next(answers: AsyncGenerator[list[Entry]]) -> list[Entry] | None:
    return await anext(answers, None)


def _share_of(journal: Journal) -> str:
    return journal.path.name.partition(".")[0]


def estimate_teacher(config: TeacherConfig, run: StageRun) -> str:
    """Say what the missing answers will cost; nobody is asked, and no key is read."""
    pairs = _pairs(config, run)
    records = read_numbered(run.input(config.pairs), [((0, pairs.wanted),)], config.skip_pairs)
    owed = Owed(cell_of(config, run), pairs, records, config.part_pairs)
    seen, without = Measured(), forgotten(run.dir / CALLS)
    for path in journals(run.dir / CALLS):
        for entry in read_journal(path):
            seen.add(entry)
            owed.fill(entry, without)
    calls = make_calls(config, records, owed.missing())
    return forecast(config, price_of(config), calls, seen, seen.ratio(config, records))


def run_teacher(config: TeacherConfig, run: StageRun) -> StageResult:
    """Judge the pairs that are not judged yet and rebuild judgements.parquet.

    Raises ConfigError where skip_pairs leaves nothing, HaltedError where the API or the budget lets nobody go on.
    """
    units = work_teacher(config, run)
    owing = sum(unit.rows for unit in units)
    safe = (1 for completed in share_teacher(config, run, units) for _ in range(completed))
    asked = sum(progress(safe, owing, "teacher", "pair"))
    pairs = _pairs(config, run)
    rows = rebuild(run, run.dir / PARTS, [cell_of(config, run)], PairSets({None: pairs}))
    for path in journals(run.dir / CALLS):
        repair(path)
    outcomes = outcomes_of(run.dir / "judgements.parquet")
    spent = spending(run.dir / CALLS).to_json()
    told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    _LOG.info("%d pairs: %s%s", pairs.wanted, told, f"; ${spent['cost_usd']:.2f}" if spent["cost_usd"] else "")
    if rows != (due := 2 * config.n_samples * pairs.wanted):
        raise StageError(f"{run.dir}: {rows} of {due} rows; somebody else has changed it meanwhile: run this again")
    results = {"pairs": pairs.wanted, "asked_now": asked, "outcomes": outcomes, **spent}
    return StageResult({"judgements.parquet": rows, PARTS: None, CALLS: None}, results)


def outcomes_of(path: Path) -> dict[str, int]:
    """Return how many answers had each outcome, the most frequent first."""
    return dict(Counter(map(str, read_judgements(path, ["outcome"])["outcome"].to_pylist())).most_common())


def _pairs(config: TeacherConfig, run: StageRun) -> Pairs:
    path = run.input(config.pairs)
    labels = read_labels(path, config.skip_pairs)
    if not labels:
        raise ConfigError(f"{path}: no pairs left after skip_pairs={config.skip_pairs}")
    return Pairs(labels, min(config.n_pairs or len(labels), len(labels)))


def cell_of(config: TeacherConfig, run: StageRun) -> Cell:
    """Return what is written about the teacher into every row. Raises ConfigError where its weights are none."""
    # A teacher's own sampling is in its requests' hashes; here it says only whether the answers were greedy.
    sampling = Sampling(1.0 if config.temperature is None else config.temperature, 1.0, 0, config.max_tokens)
    weights = find_model(run, config.judge, config.weights).model_hash if config.weights else config.judge
    return Cell("part", config.judge, weights, None, get_prompt(config.prompt), sampling, config.n_samples, config.seed)
