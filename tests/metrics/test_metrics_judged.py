from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_judgements import judgement

from btrm.config import ConfigError
from btrm.metrics.judged import JudgedCell, read_cells
from btrm.records import Judgement, PreferencePair, write_judgements, write_pairs

CONTEXTS = ("first", "second", "first")


def made_pairs() -> list[PreferencePair]:
    """Three pairs, two of one context; the last label is a tie."""
    return [
        PreferencePair.make(
            context,
            (f"reply {number}", f"a longer reply {number}"),
            (0, 1, None)[number],
            source="made",
            split="test",
            meta={"subset": f"s{number % 2}"} | ({"benchmark": "bench"} if number else {}),
        )
        for number, context in enumerate(CONTEXTS)
    ]


def answer(pair: PreferencePair, side: int, sample: int = 0, score: float | None = 50.0, **others: Any) -> Judgement:
    return judgement(pair, side, sample, score, **{"prompt": "toy_score100", **others})


def read(folder: Path, rows: list[Judgement], pairs: list[PreferencePair] | None = None) -> list[JudgedCell]:
    write_judgements(folder / "j.parquet", rows)
    if pairs is None:
        return read_cells(folder / "j.parquet")
    write_pairs(folder / "p.parquet", pairs)
    return read_cells(folder / "j.parquet", folder / "p.parquet")


def grid(pair: PreferencePair) -> list[Judgement]:
    return [answer(pair, side, sample, 10.0 * side + sample) for side in (0, 1) for sample in (0, 1)]


def test_scores_stand_by_pair_side_and_sample_whatever_the_order(tmp_path: Path) -> None:
    pairs = made_pairs()
    rows = [row for pair in pairs for row in grid(pair)]
    rows[1] = dataclasses.replace(rows[1], score=None, outcome="truncated")
    (cell,) = read(tmp_path, rows)
    assert cell.label_id_P == [pairs[0].label_id, pairs[1].label_id]
    expected = [[[0, np.nan], [10, 11]], [[0, 1], [10, 11]]]
    assert np.array_equal(cell.score_P2K, expected, equal_nan=True)
    assert cell.asked_P2.tolist() == [[2, 2], [2, 2]]
    assert cell.preferred_P.tolist() == [0, 1]
    assert (cell.label_ties, cell.facts) == (1, None)
    assert [count_P.tolist() for count_P in cell.rates()["truncated_rate"]] == [[1, 0], [4, 4]]
    (shuffled,) = read(tmp_path, [rows[i] for i in np.random.default_rng(0).permutation(len(rows))])
    place = [shuffled.label_id_P.index(name) for name in cell.label_id_P]
    assert np.array_equal(shuffled.score_P2K[place], cell.score_P2K, equal_nan=True)


def test_a_cell_is_a_judge_a_data_set_a_seed_and_a_prompt(tmp_path: Path) -> None:
    pair = made_pairs()[0]
    keys = [{"judge": "base"}, {"seed": 1}, {"dataset": "other"}, {"prompt": "toy_score5"}]
    cells = read(tmp_path, [answer(pair, side, **key) for side in (0, 1) for key in keys] + grid(pair))
    assert [(c.judge, c.seed, c.dataset, c.prompt) for c in cells] == [
        ("base", 0, "test", "toy_score100"),
        ("sft", 1, "test", "toy_score100"),
        ("sft", 0, "other", "toy_score100"),
        ("sft", 0, "test", "toy_score5"),
        ("sft", 0, "test", "toy_score100"),
    ]
    assert [cell.asked_P2.sum() for cell in cells] == [2, 2, 2, 2, 4]


def test_judgements_of_before_there_were_data_sets_have_their_split(tmp_path: Path) -> None:
    write_judgements(tmp_path / "new.parquet", grid(made_pairs()[0]))
    pq.write_table(pq.read_table(tmp_path / "new.parquet").drop(["dataset"]), tmp_path / "old.parquet")
    (cell,) = read_cells(tmp_path / "old.parquet")
    assert cell.dataset == "test"


def test_pairs_of_one_context_are_one_cluster_in_all_cells(tmp_path: Path) -> None:
    pairs = [dataclasses.replace(pair, preferred=0) for pair in made_pairs()]
    rows = [row for pair in pairs for row in grid(pair)]
    rows += [answer(pair, side, seed=1) for pair in reversed(pairs) for side in (0, 1)]
    one, other = read(tmp_path, rows, pairs)
    assert one.cluster_P[0] == one.cluster_P[2] != one.cluster_P[1]
    assert other.cluster_P.tolist() == one.cluster_P[::-1].tolist()
    (alone, _) = read(tmp_path, rows)
    assert len(set(alone.cluster_P)) == 3


def test_several_labels_of_one_pair_are_one_cluster_without_pairs(tmp_path: Path) -> None:
    pair = made_pairs()[0]
    twice = [pair, dataclasses.replace(pair, label_id=f"{pair.pair_id}-1", preferred=1)]
    (cell,) = read(tmp_path, [row for label in twice for row in grid(label)])
    assert cell.cluster_P[0] == cell.cluster_P[1]
    assert cell.preferred_P.tolist() == [0, 1]


def test_facts_are_those_of_the_cells_pairs(tmp_path: Path) -> None:
    pairs = made_pairs()
    (cell,) = read(tmp_path, grid(pairs[1]), pairs)
    assert cell.facts is not None
    assert cell.facts.length_P2.tolist() == [[len(pairs[1].responses[0]), len(pairs[1].responses[1])]]
    assert (cell.facts.subset_P, cell.facts.benchmark_P, cell.facts.benchmark) == (["s1"], ["bench"], "bench")
    (both,) = read(tmp_path, grid(pairs[0]) + grid(pairs[1]), pairs)
    assert both.facts is not None
    assert (both.facts.benchmark_P, both.facts.benchmark) == (["made", "bench"], "")


def test_pairs_that_lack_what_was_judged_are_an_error(tmp_path: Path) -> None:
    pairs = made_pairs()
    with pytest.raises(ConfigError, match=rf"p\.parquet: lacks 1 judged pairs \({pairs[1].label_id}.*run judge again"):
        read(tmp_path, grid(pairs[0]) + grid(pairs[1]), pairs[:1])


def test_a_sample_that_was_judged_twice_is_an_error(tmp_path: Path) -> None:
    pair = made_pairs()[0]
    with pytest.raises(ConfigError, match=rf"{pair.label_id}, side 1, sample 1 is there more than once for sft"):
        read(tmp_path, [*grid(pair), answer(pair, 1, 1)])


def test_the_mass_of_expected_scores_is_read(tmp_path: Path) -> None:
    pair = made_pairs()[0]
    rows = [answer(pair, 0, distribution='{"mass": 0.75, "weights": {"50": 1.0}}', method="expected")]
    (cell,) = read(tmp_path, [*rows, answer(pair, 1, distribution='{"mass":1e-3,"weights":{}}', method="expected")])
    assert cell.mass_R.tolist() == [0.75, 0.001]
    assert cell.method == "expected"
    (none,) = read(tmp_path, grid(pair))
    assert np.isnan(none.mass_R).all()
