"""Many parts become one: killed anywhere, or beside another that does the same, each row is there once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from btrm.data.toy import toy_pairs
from btrm.judges import numbered, rebuild
from btrm.judges.ask import judgements
from btrm.judges.base import Sampling
from btrm.judges.cells import Cell, parts_by_cell
from btrm.judges.numbered import Pairs
from btrm.judges.pair_sets import PairSets
from btrm.judges.rebuild import compact
from btrm.judges.rule import RULES, RuleJudge
from btrm.prompts import get_prompt
from btrm.records import read_judgements, write_judgements
from btrm.work import Unit, ranges

PROMPT = get_prompt("toy_score100")
CELL = Cell("a_seed0", "a", "weights", None, PROMPT, Sampling(0.7, 0.9, 50, 8), 2, 0)
RECORDS = list(toy_pairs("test", 10))
PAIRS = Pairs([pair.label_id for pair in RECORDS[:8]], 7)  # two pairs are not known any more, one is not wanted
KEYS = ("label_id", "side", "sample")
PARTS = st.lists(st.sets(st.integers(0, 9), min_size=1).map(sorted), min_size=1, max_size=4)


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs, and nothing catches it."""


def add(folder: Path, numbers: Iterable[int]) -> Path:
    """Write the part that an attempt which asked about these pairs would win."""
    records = [RECORDS[number] for number in numbers]
    path = folder / PAIRS.part_name(CELL, [record.label_id for record in records])
    write_judgements(path, judgements(CELL, RuleJudge(RULES["rule_random"], PROMPT), records))
    return path


def do_compact(folder: Path) -> Any:
    return compact(CELL, parts_by_cell(folder).get(CELL.name, []), PAIRS, folder.parent / "scratch.parquet")


def rows(table: Any) -> list[tuple[str, int, int, str]]:
    return list(zip(*(table[name].to_pylist() for name in (*KEYS, "completion")), strict=True))


def on_disk(folder: Path) -> set[tuple[str, int, int, str]]:
    return {row for path in folder.iterdir() for row in rows(read_judgements(path))}


def expected(numbers: Iterable[int]) -> list[tuple[str, int, int, str]]:
    """Return the rows of these pairs in order; pairs that are not known stand at the end, by label."""
    known = sorted({n for n in numbers if n < 8})
    unknown = sorted({n for n in numbers if n >= 8}, key=lambda number: RECORDS[number].label_id)
    asked = judgements(CELL, RuleJudge(RULES["rule_random"], PROMPT), [RECORDS[n] for n in [*known, *unknown]])
    return [(row.label_id, row.side, row.sample, row.completion) for row in asked]


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, before: Callable[[], object] = lambda: None) -> None:
    """Have the `step`-th change of the directory not happen, nor any after it."""
    left, real_win, real_unlink = [step], rebuild.win, Path.unlink

    def count() -> None:
        before()
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    def win(source: Path, target: Path) -> bool:
        count()
        return real_win(source, target)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith(CELL.name):
            count()
        real_unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(rebuild, "win", win)
    monkeypatch.setattr(Path, "unlink", unlink)


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(parts=PARTS, kills=st.lists(st.integers(0, 4), max_size=3))
def test_killed_at_any_step_and_begun_again(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], kills: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("compact") / "cells"
    folder.mkdir()
    for numbers in parts:
        add(folder, numbers)
    asked = {number for numbers in parts for number in numbers}
    holes = ranges(sorted({0, 1, 2, 3, 4, 5, 6} - asked))
    for step in kills:
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            killed_at(step, patch)
            do_compact(folder)
        assert on_disk(folder) == set(expected(asked))
        assert PAIRS.missing(CELL, parts_by_cell(folder)[CELL.name]) == holes
    assert rows(do_compact(folder)) == expected(asked)
    (one,) = folder.iterdir()
    assert sorted(rows(read_judgements(one))) == sorted(expected(asked))
    assert PAIRS.missing(CELL, parts_by_cell(folder)[CELL.name]) == holes


@pytest.mark.parametrize("step", range(5))
def test_a_part_that_comes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """An orphan commits while parts are put together: before the win, before each removal, after the last."""
    folder, seen = tmp_path / "cells", list[int]()
    folder.mkdir()
    for numbers in ([0, 1, 2], [3, 4], [5]):
        add(folder, numbers)

    def orphan() -> None:
        seen.append(len(seen))
        if len(seen) - 1 == step:
            add(folder, [2, 3, 6])

    with monkeypatch.context() as patch:
        killed_at(99, patch, orphan)
        do_compact(folder)
    if step == 4:
        assert len(seen) == 4  # one win, three removals
        add(folder, [2, 3, 6])
    assert on_disk(folder) == set(expected(range(7)))
    assert rows(do_compact(folder)) == expected(range(7))
    assert len(list(folder.iterdir())) == 1


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(parts=PARTS, late=st.sets(st.integers(0, 9), min_size=1).map(sorted), step=st.integers(0, 5))
def test_two_that_put_together_the_same_cell(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], late: list[int], step: int
) -> None:
    """One stops at any step, another adds a part and does all of it, then the first goes on from where it was."""
    folder = tmp_path_factory.mktemp("compact") / "cells"
    folder.mkdir()
    for numbers in parts:
        add(folder, numbers)
    asked = {number for numbers in [*parts, late] for number in numbers}
    seen: list[int] = []

    def other() -> None:
        seen.append(len(seen))
        if len(seen) - 1 == step:
            add(folder, late)
            compact(CELL, parts_by_cell(folder)[CELL.name], PAIRS, folder.parent / "other.parquet")

    with pytest.MonkeyPatch.context() as patch:
        killed_at(99, patch, other)
        do_compact(folder)
    if step >= len(seen):
        add(folder, late)
    assert on_disk(folder) == set(expected(asked))
    assert rows(do_compact(folder)) == expected(asked)


def test_where_two_attempts_differ_the_longer_part_counts_and_goes_on_counting(tmp_path: Path) -> None:
    """A GPU's arithmetic may differ in the last bit from one batch to another: what was read once stays."""
    folder = tmp_path / "cells"
    folder.mkdir()
    add(folder, [0, 1, 2, 3])
    other = Cell(**{**{name: getattr(CELL, name) for name in CELL.__slots__}, "seed": 9})
    records = [RECORDS[3], RECORDS[4]]
    path = folder / PAIRS.part_name(CELL, [record.label_id for record in records])
    write_judgements(path, judgements(other, RuleJudge(RULES["rule_random"], PROMPT), records))
    found = rows(do_compact(folder))
    assert [row for row in found if row[0] != RECORDS[4].label_id] == expected(range(4))
    add(folder, [4])
    assert rows(do_compact(folder)) == found


@pytest.mark.parametrize("goes", [1, 99])
def test_a_look_at_what_is_missing_while_parts_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes: int) -> None:
    """A part that must be opened is put together with another between the listing and the opening."""
    folder, looks, read = tmp_path / "cells", list[int](), numbered.read_part
    folder.mkdir()
    add(folder, [0, 2])
    add(folder, [1])

    def gone(*arguments: Any) -> Any:
        looks.append(1)
        if len(looks) > goes:
            return read(*arguments)
        do_compact(folder)
        raise FileNotFoundError

    monkeypatch.setattr(numbered, "read_part", gone)
    if goes == 1:
        assert PairSets({None: PAIRS}).missing_units(folder, [CELL]) == [Unit(CELL.name, ((3, 7),))]
        return
    add(folder, [4, 6])  # a hole stays, so that each look opens a part
    with pytest.raises(FileNotFoundError):
        PairSets({None: PAIRS}).missing_units(folder, [CELL])


def test_one_part_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    before = add(folder, range(8)).stat()
    assert rows(do_compact(folder)) == expected(range(8))
    (after,) = (path.stat() for path in folder.iterdir())
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
