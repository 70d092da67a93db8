from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_judgements import judgement

from btrm.cli import main
from btrm.config import ConfigError
from btrm.metrics.agreement import agreement, cohens_kappa, read_scores
from btrm.metrics.correlation import pearson, ranks
from btrm.metrics.position import position_bias
from btrm.records import Judgement, PreferencePair, write_judgements, write_pairs

PAIRS = [PreferencePair.make(f"c{n}", ("a", "b"), n % 2, source="s", split="train") for n in range(120)]


def judged(pair: PreferencePair, side: int, score: float | None, judge: str, **changes: Any) -> Judgement:
    return judgement(pair, side, score=score, judge=judge, **changes)


def write(path: Path, noise: float, seed: int, pairs: list[PreferencePair] = PAIRS) -> list[tuple[float, float]]:
    drawn = random.Random(seed)
    scores = [
        tuple(float(round(50 + (6 if pair.preferred == side else -6) + drawn.gauss(0, noise))) for side in (0, 1))
        for pair in pairs
    ]
    rows = [judged(p, side, s[side], path.stem) for p, s in zip(pairs, scores, strict=True) for side in (1, 0)]
    write_judgements(path, rows)
    return [(one, other) for one, other in scores]


def plain_kappa(one: list[int], other: list[int]) -> float:
    """Cohen's kappa from the table of counts."""
    n = len(one)
    rows, columns = Counter(one), Counter(other)
    observed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    chance = sum(rows[c] * columns[c] for c in (-1, 0, 1)) / n**2
    return (observed - chance) / (1 - chance)


def test_every_figure_against_a_plain_formula(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.parquet", 8, 1), write(tmp_path / "b.parquet", 20, 2)
    found = agreement(read_scores(tmp_path / "a.parquet"), read_scores(tmp_path / "b.parquet"), most=3)
    signs = [[int(np.sign(s[0] - s[1])) for s in scores] for scores in (a, b)]
    assert {0} < set(signs[0]) or {0} < set(signs[1])  # ties are a class of their own here
    assert found.common == found.compared == found.labelled == len(PAIRS) and found.coverage == (1, 1)
    assert found.agreement == pytest.approx(np.mean([x == y for x, y in zip(*signs, strict=True)]))
    assert found.kappa == pytest.approx(plain_kappa(*signs))
    flat_a, flat_b = np.array(a).ravel(), np.array(b).ravel()
    assert found.pearson == pytest.approx(np.corrcoef(flat_a, flat_b)[0, 1])
    assert found.mean_difference == pytest.approx(np.abs(flat_a - flat_b).mean())
    credit = [
        [0.5 + 0.5 * s * (1 - 2 * p.preferred) for s, p in zip(mine, PAIRS, strict=True) if p.preferred is not None]
        for mine in signs
    ]
    assert found.accuracy == pytest.approx((np.mean(credit[0]), np.mean(credit[1])))
    assert found.accuracy_lead_interval.low < found.accuracy_lead < found.accuracy_lead_interval.high
    assert found.agreement_interval.low < found.agreement < found.agreement_interval.high
    apart = sorted((abs((x[0] - x[1]) - (y[0] - y[1])) for x, y in zip(a, b, strict=True)), reverse=True)
    assert [pair.apart for pair in found.differing] == apart[:3]


def test_spearman_is_the_correlation_of_mean_ranks() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]
    grown = np.exp(np.arange(6.0))
    assert pearson(np.arange(6.0), grown) < 0.9 < pearson(ranks(np.arange(6.0)), ranks(grown)) == pytest.approx(1)


def test_what_is_not_defined_is_nan() -> None:
    same = np.ones(4)
    assert math.isnan(cohens_kappa(same, same)) and math.isnan(pearson(same, np.arange(4.0)))
    assert cohens_kappa(np.array([1.0, -1.0]), np.array([-1.0, 1.0])) == -1


def test_a_judge_agrees_with_itself_as_far_as_so_many_pairs_can_tell(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 8, 1)
    mine = read_scores(tmp_path / "a.parquet")
    found = agreement(mine, mine)
    assert (found.agreement, found.kappa, found.spearman) == pytest.approx((1, 1, 1)) and not found.differing
    left_open = 1 - 0.025 ** (1 / found.common)  # what none of so many pairs shows
    assert (found.agreement_interval.low, found.agreement_interval.high) == pytest.approx((1 - left_open, 1))
    lead = found.accuracy_lead_interval
    assert (lead.low, lead.high) == pytest.approx((-left_open, left_open))
    one = position_bias([3.0] * 10, [str(n) for n in range(10)]).interval
    assert (one.low, one.high) == pytest.approx((0.025**0.1, 1))


def test_pairs_that_only_one_scored_are_told_and_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 8, 1, PAIRS[:100])
    rows = [judged(p, side, 60.0 if side else None, "b") for p in PAIRS[50:52] for side in (0, 1)]
    write_judgements(tmp_path / "b.parquet", rows)
    found = agreement(read_scores(tmp_path / "a.parquet"), read_scores(tmp_path / "b.parquet"))
    assert (found.common, found.only, found.compared, found.coverage) == (2, (98, 0), 0, (1, 0))
    assert math.isnan(found.agreement) and found.accuracy[1] == 0 and not found.differing


def test_the_command_prints_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.parquet", 8, 1)
    (tmp_path / "run/teacher").mkdir(parents=True)
    write(tmp_path / "run/teacher/judgements.parquet", 20, 2)
    write_pairs(tmp_path / "pairs.parquet", PAIRS[:30])
    words = ["agreement", str(tmp_path / "a.parquet"), str(tmp_path / "run/teacher")]
    assert main([*words, "--most", "2"]) == 0
    text = capsys.readouterr().out
    assert "120 in common" in text and len(text.split("they differ most on")[1].splitlines()) == 3
    assert main([*words, "--pairs", str(tmp_path / "pairs.parquet"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["common"] == 30


def test_how_often_what_is_shown_first_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Side 0 has 60, side 1 has 40: whichever is shown first wins as often as side 0 is it."""
    first = [number % 4 != 0 for number in range(len(PAIRS))]
    rows = [
        judged(p, side, 60 - 20 * side, "a", layout="pairwise", shown_first=side0 == (side == 0))
        for p, side0 in zip(PAIRS, first, strict=True)
        for side in (1, 0)
    ]
    write_judgements(tmp_path / "a.parquet", rows)
    write(tmp_path / "b.parquet", 8, 1, PAIRS[:40])
    found = agreement(read_scores(tmp_path / "a.parquet"), read_scores(tmp_path / "b.parquet"))
    mine, other = found.position
    assert (mine.n, mine.first_wins, other.n) == (40, 0.75, 0) and math.isnan(other.first_wins)
    assert 0.55 < mine.interval.low < 0.75 < mine.interval.high < 0.92
    assert main(["agreement", str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]) == 0
    text = capsys.readouterr().out
    assert "shown first    A prefers it in 75.00% (95 %: " in text and "B prefers it" not in text


def test_what_cannot_be_compared_is_refused_with_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.parquet", 8, 1, PAIRS[:10])
    write(tmp_path / "b.parquet", 8, 1, PAIRS[10:20])
    write_judgements(tmp_path / "c.parquet", [judged(PAIRS[0], 0, 4, "c", prompt="hh_score5_v1")])
    write_judgements(tmp_path / "d.parquet", [judged(PAIRS[0], 0, 4, "d", pair_id="other")])
    a = read_scores(tmp_path / "a.parquet")
    for name, problem in (("b", "no pair in common"), ("c", "on the scale"), ("d", "and pair other in")):
        with pytest.raises(ConfigError, match=problem) as raised:
            agreement(a, read_scores(tmp_path / f"{name}.parquet"))
        assert "a.parquet" in str(raised.value) and f"{name}.parquet" in str(raised.value)
    assert main(["agreement", str(tmp_path), str(tmp_path / "a.parquet")]) == 2
    assert "no judgements.parquet" in capsys.readouterr().err
