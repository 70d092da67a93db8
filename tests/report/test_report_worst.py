"""The worst pairs: which are picked, in which order, with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from btrm.records import Judgement, PreferencePair, write_judgements, write_pairs
from btrm.report.report_input import WorstPair
from btrm.report.rows import JudgeKey
from btrm.report.worst import worst_pairs

# scores of the preferred and of the other side, two samples each (None: unparsed)
CASES: dict[str, tuple[Sequence[float | None], Sequence[float | None]]] = {
    "right": ((90, 90), (10, 10)),
    "wrong": ((20, 20), (80, 80)),
    "very wrong": ((5, 5), (95, 95)),
    "torn": ((0, 100), (100, 0)),
    "a bit torn": ((40, 60), (50, 50)),
    "silent": ((None, None), (50, 50)),
    "tied": ((50, 50), (50, 50)),
}


def make(case: str, preferred: int | None, dataset: str = "test", judge: str = "m") -> list[Judgement]:
    pair = pair_of(case, preferred)
    liked, other = CASES[case]
    sides = (liked, other) if preferred != 1 else (other, liked)
    return [
        Judgement(
            label_id=pair.label_id,
            pair_id=pair.pair_id,
            side=side,
            sample=0,
            preferred_side=preferred,
            split="test",
            judge=judge,
            model_hash="h",
            adapter_hash=None,
            prompt="p",
            method="sampled",
            seed=seed,
            completion=f"{case} {side} {seed}",
            score=score,
            outcome="unparsed" if score is None else "scored",
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=1,
            dataset=dataset,
        )
        for side in (0, 1)
        for seed, score in enumerate(sides[side])
    ]


def pair_of(case: str, preferred: int | None) -> PreferencePair:
    return PreferencePair.make(case, (f"{case} 0", f"{case} 1"), preferred, source="s", split="test")


@pytest.fixture(params=[0, 1], ids=["side 0 preferred", "side 1 preferred"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    preferred = int(request.param)
    rows = [row for case in CASES for row in make(case, preferred)]
    rows += make("very wrong", preferred, dataset="other")
    rows += make("very wrong", preferred, judge="another")
    write_judgements(tmp_path / "j.parquet", rows)
    write_pairs(tmp_path / "p.parquet", [pair_of(case, preferred) for case in CASES])
    return tmp_path / "j.parquet", tmp_path / "p.parquet"


def named(found: list[WorstPair]) -> list[tuple[str, str]]:
    return [(pair.trouble, pair.context) for pair in found]


def test_the_most_confident_wrong_ones_and_the_loudest_disagreements(files: tuple[Path, Path]) -> None:
    found = worst_pairs(*files, JudgeKey("m", "", ""), "test")
    assert named(found) == [
        ("wrong", "very wrong"),
        ("wrong", "wrong"),
        ("disagreement", "torn"),
        ("disagreement", "a bit torn"),
    ]
    first = found[0]
    assert first.margin == -90.0 and first.spread == 0.0
    assert (first.scores[first.preferred], first.scores[1 - first.preferred]) == (5.0, 95.0)
    assert [(a.side, a.seed) for a in first.answers] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {a.completion.rpartition(" ")[0][:-2] for a in first.answers} == {"very wrong"}
    assert first.responses == ("very wrong 0", "very wrong 1")
    torn = found[2]
    assert torn.margin == 0.0 and torn.spread == pytest.approx((2 * 5000) ** 0.5)  # two variances of 0 and 100


def test_only_as_many_of_each_kind_as_asked(files: tuple[Path, Path]) -> None:
    assert named(worst_pairs(*files, JudgeKey("m", "", ""), "test", each=1)) == [
        ("wrong", "very wrong"),
        ("disagreement", "torn"),
    ]


def test_another_data_set_and_judge_stay_apart(files: tuple[Path, Path]) -> None:
    (only,) = worst_pairs(*files, JudgeKey("m", "", ""), "other")
    assert (only.dataset, only.checkpoint, len(only.answers)) == ("other", "m", 4)
    (only,) = worst_pairs(*files, JudgeKey("another", "", ""), "test")
    assert (only.checkpoint, len(only.answers)) == ("another", 4)
    assert worst_pairs(*files, JudgeKey("nobody", "", ""), "test") == []


def test_without_texts_there_is_nothing_to_read(files: tuple[Path, Path]) -> None:
    assert worst_pairs(files[0], None, JudgeKey("m", "", ""), "test") == []


def test_judgements_of_an_older_btrm_go_by_their_split(files: tuple[Path, Path]) -> None:
    table = pq.read_table(files[0]).drop_columns(["dataset"])
    pq.write_table(table, files[0])
    assert [pair.context for pair in worst_pairs(*files, JudgeKey("another", "", ""), "test")] == ["very wrong"]


def test_a_pair_whose_label_is_a_tie_is_never_wrong(tmp_path: Path) -> None:
    rows = [replace(row, preferred_side=None) for row in make("very wrong", None)]
    write_judgements(tmp_path / "j.parquet", rows)
    write_pairs(tmp_path / "p.parquet", [pair_of("very wrong", None)])
    assert worst_pairs(tmp_path / "j.parquet", tmp_path / "p.parquet", JudgeKey("m", "", ""), "test") == []
