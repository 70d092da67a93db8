"""Work cut among elements: nothing is left out, nothing stands twice, wherever it is cut."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from btrm.work import Unit, overlap, ranges, read_units, share, write_units

NUMBERS = st.sets(st.integers(0, 60)).map(sorted)
UNITS = st.lists(NUMBERS.filter(bool).map(ranges), max_size=8).map(
    lambda many: [Unit(f"cell_seed{i}", missing) for i, missing in enumerate(many)]
)


def opened(missing: tuple[tuple[int, int], ...]) -> list[int]:
    return [number for first, last in missing for number in range(first, last)]


def rows(units: list[Unit]) -> list[tuple[str, int]]:
    return [(unit.name, number) for unit in units for number in opened(unit.missing)]


@given(NUMBERS)
def test_ranges_hold_the_numbers_that_they_were_made_of(numbers: list[int]) -> None:
    made = ranges(numbers)
    assert opened(made) == numbers
    assert all(before[1] < after[0] for before, after in pairwise(made))


@given(NUMBERS, NUMBERS)
def test_an_overlap_is_what_both_hold(one: list[int], other: list[int]) -> None:
    assert overlap(ranges(one), ranges(other)) == ranges(sorted({*one} & {*other}))


@given(UNITS, st.integers(1, 12))
def test_shares_laid_end_to_end_are_the_whole_and_equally_long(units: list[Unit], elements: int) -> None:
    shares = [share(units, element, elements) for element in range(elements)]
    assert [row for mine in shares for row in rows(mine)] == rows(units)
    lengths = [sum(unit.rows for unit in mine) for mine in shares]
    assert max(lengths) - min(lengths) <= 1
    assert all(unit.rows for mine in shares for unit in mine)


LONG = st.tuples(st.integers(0, 9), st.integers(150, 999), st.integers(1, 9), st.integers(150, 999)).map(
    lambda a: ((a[0], a[0] + a[1]), (a[0] + a[1] + a[2], a[0] + a[1] + a[2] + a[3]))
)


@given(seeds=st.integers(1, 4), missing=st.lists(LONG, min_size=1, max_size=2), elements=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_long_shares_keep_the_seeds_of_a_pair_together(
    seeds: int, missing: list[tuple[tuple[int, int], ...]], elements: int
) -> None:
    units = [Unit(f"c{i}_seed{seed}@test", holes) for i, holes in enumerate(missing) for seed in range(seeds)]
    shares = [share(units, element, elements) for element in range(elements)]
    assert sorted(row for mine in shares for row in rows(mine)) == sorted(rows(units))
    lengths = [sum(unit.rows for unit in mine) for mine in shares]
    total = sum(unit.rows for unit in units)
    assert max(lengths) - min(lengths) <= (2 * seeds if total >= 200 * elements else 1)
    if total >= 200 * elements:
        for mine in shares:
            of_cell = {name.partition("_")[0]: [u.missing for u in mine if u.name.startswith(name.partition("_")[0])]
                       for name in (unit.name for unit in mine)}  # fmt: skip
            assert all(len(holes) == seeds and len(set(holes)) == 1 for holes in of_cell.values())


@given(units=UNITS)
def test_units_come_back_as_they_were_written(units: list[Unit]) -> None:
    path = Path("split.json")
    write_units(path, units)
    assert read_units(path) == units
    assert [p.name for p in Path().iterdir()] == ["split.json"]
