"""The page's parts by themselves: pictures, pooled details, verdicts, folded texts."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_world import HOSTILE, World, report_input

from btrm.report.page.cell_charts import panels
from btrm.report.page.cells import choose
from btrm.report.page.charts import ACCURACY, SMALL, learning_curve
from btrm.report.page.comparison_table import verdict
from btrm.report.page.made import few_contexts
from btrm.report.page.parts import page_parts
from btrm.report.page.pooled import pool
from btrm.report.page.reading import prose, visible
from btrm.report.page.spots import Spot
from btrm.report.page.svg import Frame, Plot, nice_ticks
from btrm.report.page.tables import number_cell, p_cell
from btrm.report.report_input import ReportInput

FINITE = st.floats(-1e6, 1e6, allow_nan=False)
SIZE = Frame((0, 1), (0, 1), 560, 330)


@given(FINITE, st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    slack = width * 1e-6 + abs(low) * 1e-9
    assert 1 <= len(ticks) <= 7
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)


def test_a_point_lies_where_its_numbers_say() -> None:
    frame = Frame((0, 10), (0, 1), 120, 120, 10, 10, 10, 10)
    assert frame.at(0, 0) == (10, 110)
    assert frame.at(10, 1) == (110, 10)
    assert frame.at(5, 0.5) == (60, 60)
    assert frame.at(99, -99) == (110, 110)  # kept inside the box


@given(st.lists(st.one_of(FINITE, st.just(math.nan)), max_size=12))
def test_what_is_not_a_number_is_never_drawn(values: list[float]) -> None:
    plot = Plot(Frame((0, 12), (-1, 1)), "x")
    plot.line(list(enumerate(values)), "own")
    plot.band(range(len(values)), values, values, "own")
    for place, value in enumerate(values):
        plot.dot(place, value, "own")
        plot.whisker(place, value, value, "own")
    assert "nan" not in plot.svg()


def test_a_histogram_is_one_outline_from_the_first_full_bin_to_the_last() -> None:
    plot = Plot(Frame((0, 4), (0, 2), 40, 20, 0, 0, 0, 0), "x")
    plot.bars([0, 1, 2, 3, 4], [0, 2, 1, 0], "own")
    assert 'd="M10 20V0H20V10H30V20Z"' in plot.svg()


def test_labels_in_a_picture_are_escaped() -> None:
    plot = Plot(SIZE, HOSTILE[2])
    plot.dot(0.5, 0.5, "own", tip=HOSTILE[0])
    plot.note(0.5, 0.5, HOSTILE[1])
    assert not re.search(r"<(script|img)|\"><svg", plot.svg())


def spot(name: str, step: float, mean: float, family: str = "") -> Spot:
    return Spot(name, family, step, mean, mean - 0.05, mean + 0.05, {0: mean - 0.01, 1: mean + 0.01})


def test_a_curve_has_its_points_band_seeds_and_level_lines() -> None:
    found = [spot("sft", math.nan, 0.6), *(spot(f"c-{n}", n, 0.6 + n / 1000) for n in (50, 100, 150))]
    svg = learning_curve(found, ACCURACY, "c-150", SIZE)
    assert svg is not None
    assert [svg.count(mark) for mark in ('"dot own"', '"dot own best"', '"dot seed"', '"band own"')] == [2, 1, 6, 1]
    assert svg.count("level0") == 1 and "sft 0.600" in svg and ">best<" in svg
    assert "3 checkpoints: 0.650 at step 50, 0.750 at step 150, highest 0.750 at step 150; sft 0.600" in svg


def test_families_of_prompts_are_lines_of_their_own_the_best_in_front() -> None:
    found = [spot(f"{p} {n}", n, 0.6 + n / 1000, p) for p in ("v1", "v3") for n in (50, 100)]
    svg = learning_curve(found, ACCURACY, "v3 100", SIZE)
    assert svg is not None
    assert svg.count("line own") == svg.count("line family0") == svg.count('"band own"') == 1
    assert ">\u2002v1</text>" in svg and ">\u2002v3</text>" in svg


def test_values_that_differ_by_rounding_lie_on_one_line() -> None:
    third, other = math.log(2), math.nextafter(math.log(2), 1)
    found = [Spot(f"c-{n}", "", n, third, math.nan, math.nan, {0: other}) for n in (50, 100)]
    svg = learning_curve(found, SMALL[0], None, SIZE)
    assert svg is not None
    assert len({place[1] for place in re.findall(r'c[xy]="([^"]*)" cy="([^"]*)"', svg)} - {""}) == 1


def test_a_rate_is_drawn_at_its_own_scale_whatever_few_contexts_leave_open() -> None:
    found = [Spot(f"c-{n}", "", n, n / 1e5, 0.0, 0.31, {0: n / 1e5}) for n in (50, 100)]
    svg = learning_curve(found, SMALL[-1], None, SIZE)
    assert svg is not None and '"band own"' not in svg and ">0.001<" in svg


def test_the_best_of_all_steps_is_named_clear_of_the_names_at_the_right() -> None:
    svg = learning_curve([spot(f"c-{n}", n, 0.6) for n in (50, 100)], ACCURACY, "c-100", SIZE)
    assert svg is not None and 'text-anchor="end">best<' in svg


def test_a_baseline_worse_calibrated_than_chance_is_drawn_whole() -> None:
    rows = [{"low": 0.5 + n / 10, "high": 0.6 + n / 10, "n": 400} for n in range(2)]
    good, bad = (
        pool([detail(0, reliability=[{**row, "chance": row["low"], "frequency": f} for row in rows])])["c", "d"]
        for f in (0.9, 0.1)
    )
    chart = panels(good, bad)[0]
    line = re.search(r'<path class="line other" d="([^"]*)"', chart.svg)
    assert line is not None
    bottom = max(float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", line[1]))
    assert bottom < float(chart.svg.split('viewBox="0 0 ')[1].split('"')[0].split()[1]) - 20


def test_one_step_is_no_curve() -> None:
    assert learning_curve([spot("sft", math.nan, 0.6), spot("c-50", 50, 0.7)], ACCURACY, None, SIZE) is None


def detail(seed: int, **told: Any) -> dict[str, Any]:
    return {"checkpoint": "c", "dataset": "d", "seed": seed, **told}


def test_seeds_are_brought_together_by_their_weights() -> None:
    edges = {"low": 0.5, "high": 0.6}
    bins = [{**edges, "n": n, "chance": c, "frequency": f} for n, c, f in ((10, 0.52, 0.4), (30, 0.56, 0.8))]
    histograms = [{"edges": [0, 1, 2], "counts": counts} for counts in ([1, 2], [3, 4])]
    risks = ([{"coverage": 0.5, "risk": 0.1}, {"coverage": 1.0, "risk": 0.3}], [{"coverage": 1.0, "risk": 0.5}])
    rows = [
        detail(seed, reliability=[bins[seed]], margin_histogram=histograms[seed], risk_coverage=risks[seed])
        for seed in (0, 1)
    ]
    one = pool(rows)["c", "d"]
    assert one.n_seeds == 2
    assert (one.reliability[0].chance, one.reliability[0].frequency) == pytest.approx((0.55, 0.7))
    assert one.reliability[0].n == 20  # pairs of one seed: the other has the same ones
    assert one.margins is not None and one.margins.counts == {"counts": [4, 6]}
    assert one.risk_coverage[-1] == pytest.approx((1.0, 0.4))


def test_an_empty_bin_is_no_point() -> None:
    empty = {"low": 0.5, "high": 0.6, "n": 0, "chance": None, "frequency": None}
    assert pool([detail(0, reliability=[empty])])["c", "d"].reliability == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"p_holm": 0.01, "difference": 0.1}, "x is better"),
        ({"p_holm": 0.01, "difference": -0.1}, "y is better"),
        ({"p_holm": 0.2, "p_bootstrap": 0.04, "difference": 0.1}, "told apart by itself, not after Holm"),
        (
            {"p_holm": 0.4, "p_bootstrap": 0.2, "difference": 0.1, "pairs_needed": 1234.0, "seeds_needed": math.inf},
            "not told apart; about 1,200 more pairs of new contexts might",
        ),
        ({"p_holm": math.nan, "p_bootstrap": math.nan, "difference": math.nan}, "no pairs in common"),
        ({"p_holm": "0.01", "difference": "0.1"}, "x is better"),  # as comparisons.csv is read
    ],
)
def test_verdicts(row: dict[str, Any], said: str) -> None:
    assert verdict({"a": "x", "b": "y", **row}) == said


def test_few_contexts_are_told() -> None:
    rows = [{"dataset": name, "n_contexts": n} for name, n in (("a", 10), ("b", 400), ("c", None), ("d", 1))]
    assert few_contexts(rows) == [
        "Few contexts: intervals and p-values are rough (a has 10 contexts, d has 1 context)."
    ]
    assert few_contexts(rows[1:3]) == []


def test_numbers_are_written_for_people_and_sorted_by_value() -> None:
    assert (number_cell(-1234.5678, 1).text, number_cell(-1234.5678, 1).key) == ("−1,234.6", "-1234.568")
    assert number_cell(None).text == number_cell("").text == number_cell(math.nan).text == ""
    assert (p_cell(0.0).text, p_cell(0.0).key) == ("<0.001", "0")
    assert p_cell(0.25).text == "0.250"


@given(st.text(max_size=4000), st.integers(1, 300))
def test_a_folded_text_loses_nothing(text: str, shown: int) -> None:
    folded = prose(text, shown)
    assert (folded.head + folded.tail) == (visible(text) or "(empty)")
    assert len(folded.head) <= max(shown * 1.2, len("(empty)"))


def test_many_lines_are_folded_too_and_long_texts_are_cut() -> None:
    assert prose("a\n" * 100).head == "a\n" * 20
    long = prose("word " * 4000)
    assert len(long.head) + len(long.tail) == 6000 and long.cut == "14,000 more characters are in pairs.parquet."


def test_odd_characters_are_seen() -> None:
    assert visible("a\x00\u202eb\r\nc\rd\u200f\t") == "a␀⟨U+202E⟩b\nc␍\nd⟨U+200F⟩\t"


def test_the_best_the_baseline_and_the_last_are_always_shown() -> None:
    keys = [(f"c{n}", "d") for n in range(100)]
    tables = ReportInput(
        records=[{"checkpoint": "c99", "dataset": "d"}], evals=[], best_checkpoint="c42", baseline="c1"
    )
    chosen = choose(tables, keys, 10)
    assert len(chosen) == 10 and chosen[:3] == [("c42", "d"), ("c1", "d"), ("c99", "d")]
    assert choose(tables, keys[:3], 10) == [("c1", "d"), ("c0", "d"), ("c2", "d")]


def test_judges_with_several_prompts_keep_apart() -> None:
    one = report_input(World(steps=(50, 100), datasets=("test",), seeds=(0,), n_pairs=40))
    rows = {
        name: [{**row, "prompt": prompt} for prompt in ("v1", "v3") for row in getattr(one, name)]
        for name in ("records", "evals", "details")
    }
    parts = page_parts(ReportInput(**rows))
    titles = sorted(cell.title for cell in parts["cells"])
    assert titles[:3] == ["base (v1) · test", "base (v3) · test", "checkpoint-100 (v1) · test"]
    assert len(titles) == 8
    assert parts["counts"].startswith("8 checkpoints · 1 data set · 1 seed")


def test_the_headline_of_one_checkpoint_and_of_no_choice() -> None:
    one = report_input(World(steps=(50,), datasets=("test",), seeds=(0,), n_pairs=40))
    alone = page_parts(ReportInput(records=one.records[:1], evals=one.evals[:1]))
    assert alone["best"] == "base alone was judged."
    assert alone["tiles"][0].name == "accuracy, test" and alone["tiles"][0].value == f"{one.evals[0]['accuracy']:.3f}"
    several = page_parts(ReportInput(records=one.records, evals=one.evals))
    assert (several["best"], several["tiles"]) == ("No checkpoint is called the best.", [])
