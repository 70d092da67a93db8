"""The evaluate stage: what a row, its details and its log hold, and what must not change them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from btrm.config import ConfigError
from btrm.data.sources import iter_pairs
from btrm.judges.ask import judgements
from btrm.judges.base import Sampling
from btrm.judges.cells import Cell
from btrm.judges.rule import RuleJudge
from btrm.metrics.details import details
from btrm.metrics.eval_log import log_texts
from btrm.metrics.evaluate import EvaluateConfig
from btrm.metrics.intervals import WITH_INTERVAL, intervals
from btrm.metrics.judged import JudgedCell, read_cells
from btrm.metrics.measured import Measured
from btrm.metrics.official_score import OfficialScore
from btrm.metrics.pair_facts import PairFacts
from btrm.metrics.pairwise import UnparsedAs
from btrm.metrics.scalars import scalars
from btrm.prompts import get_prompt
from btrm.publishing import write_json
from btrm.records import Judgement, read_jsonl, write_judgements, write_pairs
from btrm.report.old_logs import read_logs
from btrm.runs import Output, Resources, RunManifest
from btrm.stages import execute, prepare
from tests.metrics.made_cells import HOW, from_margins, made_cell
from tests.metrics.test_metrics_judged import answer, made_pairs

# What a resample or a fold decides: not the same to the last digit where pairs come in another order.
DRAWN = {f"{name}_{end}" for name in WITH_INTERVAL for end in ("low", "high")}


def drawn_cell(seed: int, pairs: int = 40, samples: int = 3, missing: float = 0.15) -> JudgedCell:
    rng = np.random.default_rng(seed)
    score = np.clip(np.rint(rng.normal(50, 15, (pairs, 2, samples)) + np.array([[9.0], [0.0]])), 0, 100)
    score = np.where(rng.random(score.shape) < missing, np.nan, score)
    preferred = rng.integers(0, 2, pairs)
    score = np.where((preferred == 0)[:, None, None], score, score[:, ::-1])
    meta = [json.dumps({"subset": name}) for name in rng.choice(["chat", "hard", ""], pairs)]
    facts = PairFacts(rng.integers(1, 500, (pairs, 2)), ["made"] * pairs, meta)
    return made_cell(score, preferred, rng.integers(0, pairs // 2, pairs), facts)


def row_of(cell: JudgedCell, **how: Any) -> dict[str, Any]:
    found = Measured(cell, dataclasses.replace(HOW, **how))
    return scalars(found, intervals([found], 200, 0)[0])


def taken(cell: JudgedCell, order: np.ndarray) -> JudgedCell:
    """The cell with its pairs in this order (some twice, under other labels)."""
    assert cell.facts is not None
    facts = PairFacts(cell.facts.length_P2[order], ["made"] * len(order), [cell.facts.meta_json_P[i] for i in order])
    return dataclasses.replace(
        cell,
        label_id_P=[f"{cell.pair_id_P[i]}-{place}" for place, i in enumerate(order)],
        pair_id_P=[cell.pair_id_P[i] for i in order],
        cluster_P=cell.cluster_P[order],
        preferred_P=cell.preferred_P[order],
        score_P2K=cell.score_P2K[order],
        asked_P2=cell.asked_P2[order],
        outcome_R=cell.outcome_R.reshape(len(cell.label_id_P), -1)[order].ravel(),
        pair_R=np.repeat(np.arange(len(order)), len(cell.outcome_R) // len(cell.label_id_P)),
        facts=facts,
    )


def settled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in DRAWN}


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(["tie", "wrong", "drop"]))
def test_which_side_is_which_changes_nothing(seed: int, unparsed: str) -> None:
    cell = drawn_cell(seed)
    assert cell.facts is not None
    facts = PairFacts(cell.facts.length_P2[:, ::-1], cell.facts.source_P, cell.facts.meta_json_P)
    swapped = dataclasses.replace(
        cell,
        preferred_P=1 - cell.preferred_P,
        score_P2K=cell.score_P2K[:, ::-1],
        asked_P2=cell.asked_P2[:, ::-1],
        facts=facts,
    )
    assert row_of(swapped, unparsed=unparsed) == pytest.approx(row_of(cell, unparsed=unparsed), nan_ok=True)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_order_of_pairs_changes_nothing(seed: int, rng: Any) -> None:
    cell = drawn_cell(seed)
    order = np.array(rng.sample(range(40), 40))
    assert settled(row_of(taken(cell, order))) == pytest.approx(settled(row_of(cell)), nan_ok=True)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_pairs_that_stand_twice_change_no_value(seed: int) -> None:
    cell = drawn_cell(seed)
    once, twice = row_of(cell), row_of(taken(cell, np.tile(np.arange(40), 2)))
    counted = {"n_pairs", "n_judgements", "score_std", "within_variance", "between_variance", "intraclass_correlation"}
    fitted = {"fitted_log_loss", "fitted_temp", "brier", "ece", "aurc"}  # twice the pairs, half the doubt and the steps
    same = [name for name in settled(once) if name not in counted | fitted and not name.split("_p")[-1].isdigit()]
    assert {n: twice[n] for n in same} == pytest.approx({n: once[n] for n in same}, nan_ok=True)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(["tie", "wrong", "drop"]))
def test_samples_that_stand_twice_change_no_accuracy(seed: int, unparsed: str) -> None:
    cell = drawn_cell(seed)
    double = dataclasses.replace(
        cell,
        score_P2K=np.concatenate([cell.score_P2K, cell.score_P2K], 2),
        asked_P2=2 * cell.asked_P2,
        outcome_R=np.tile(cell.outcome_R, 2),
        pair_R=np.tile(cell.pair_R, 2),
    )
    once, twice = row_of(cell, unparsed=unparsed), row_of(double, unparsed=unparsed)
    names = [
        *WITH_INTERVAL,
        *DRAWN,
        "ece",
        "auc_margin",
        "aurc",
        "fitted_temp",
    ]
    assert {n: twice[n] for n in names} == pytest.approx({n: once[n] for n in names}, nan_ok=True)


def test_cells_of_the_same_pairs_have_the_intervals_that_each_has_alone() -> None:
    cells = [Measured(drawn_cell(seed), HOW) for seed in (1, 2)]
    cells.append(Measured(dataclasses.replace(drawn_cell(3), cluster_P=cells[0].cell.cluster_P), HOW))
    together = intervals(cells, 300, 0)
    for cell, found in zip(cells, together, strict=True):
        alone = intervals([cell], 300, 0)[0]
        assert {n: i.low for n, i in found.items()} == pytest.approx({n: i.low for n, i in alone.items()})


def test_a_judge_that_is_always_right_has_an_interval() -> None:
    cell = made_cell(np.tile([[[80.0], [20.0]]], (50, 1, 1)))
    row = row_of(cell)
    assert (row["accuracy"], row["accuracy_high"]) == (1.0, 1.0)
    assert row["accuracy_low"] == pytest.approx(0.025 ** (1 / 50))


def test_no_score_at_all_is_a_row_of_coins() -> None:
    row = row_of(made_cell(np.full((10, 2, 2), np.nan)))
    assert (row["accuracy"], row["strict_accuracy"], row["coverage"], row["unparsed_rate"]) == (0.5, 0.0, 0.0, 1.0)
    assert row["bt_log_loss"] == row["fitted_log_loss"] == pytest.approx(math.log(2))
    assert math.isnan(row["score_mean"]) and math.isnan(row["auc_margin"])


@pytest.mark.parametrize("unparsed", ["wrong", "tie", "drop"])
def test_the_accuracy_under_every_convention_is_shown(unparsed: UnparsedAs) -> None:
    cell = drawn_cell(5)
    row, other = row_of(cell), row_of(cell, unparsed=unparsed)
    assert row[f"accuracy_unparsed_{unparsed}"] == other["accuracy"] == other[f"accuracy_unparsed_{unparsed}"]
    assert row["accuracy_unparsed_wrong"] < row["accuracy_unparsed_tie"]


def test_intervals_of_single_pairs_are_about_wilsons() -> None:
    right = np.random.default_rng(0).random(800) < 0.7
    found = Measured(made_cell(from_margins(np.where(right, 20.0, -20.0))), HOW)
    interval = intervals([found], 4000, 0)[0]["accuracy"]
    wilson = proportion_confint(int(right.sum()), 800, method="wilson")
    assert (interval.low, interval.high) == pytest.approx(wilson, abs=0.003)


@pytest.mark.parametrize("name", ["tie_rate", "coverage", "unparsed_rate", "truncated_rate"])
def test_rates_have_the_interval_of_a_share_of_contexts(name: str) -> None:
    score = np.random.default_rng(2).integers(0, 8, (600, 2, 1)).astype(float)
    score[np.random.default_rng(3).random(score.shape) < 0.2] = np.nan
    cell = made_cell(score)
    cell = dataclasses.replace(cell, outcome_R=np.where(cell.outcome_R == "scored", "scored", "truncated"))
    row = row_of(cell)
    n = 600 if name in ("tie_rate", "coverage") else 1200
    low, high = proportion_confint(round(row[name] * n), n, method="wilson")
    assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((low, high), abs=0.008)


def test_details_add_up() -> None:
    found = Measured(drawn_cell(5, pairs=200), HOW)
    nested = details(found, intervals([found], 200, 0)[0])
    assert sum(b["n"] for b in nested["reliability"]) == (~found.outcomes.unparsed_P).sum()
    scores = nested["score_histogram"]
    assert sum(scores["preferred"]) + sum(scores["other"]) == len(found.cell.scored_N)
    margins = nested["margin_histogram"]
    assert sum(margins["counts"]) == (~found.outcomes.unparsed_P).sum()
    assert len(margins["edges"]) == len(margins["counts"]) + 1
    assert margins["edges"][0] < -100 and margins["edges"][-1] > 100
    subsets = {row["name"]: row for row in nested["subsets"]}
    subset_P = np.array(found.cell.facts.subset_P) if found.cell.facts else np.empty(0)
    assert set(subsets) == {"chat", "hard"}
    for name, row in subsets.items():
        assert row["accuracy"] == pytest.approx(found.outcomes.credit_P[subset_P == name].mean())
        assert row["low"] < row["accuracy"] < row["high"]
    assert nested["mean_at_k"][-1]["accuracy"] == pytest.approx(found.value("accuracy"))


def test_uncertain_scores_are_those_of_the_scale_where_not_said() -> None:
    scores = np.array([[[20.0], [81.0]], [[80.0], [19.0]]])
    assert row_of(made_cell(scores))["uncertain_rate"] == 0.5
    assert row_of(made_cell(scores), uncertain=(None, 100.0))["uncertain_rate"] == 0.75
    five = made_cell(np.array([[[2.0], [4.1]], [[4.0], [1.9]]]), prompt="score5_v4")
    assert row_of(five)["uncertain_rate"] == 0.5


def test_the_log_reads_as_the_row_and_adds_what_is_asked_for() -> None:
    found = Measured(drawn_cell(5, pairs=200), HOW)
    ci = intervals([found], 200, 0)[0]
    row, nested = scalars(found, ci), details(found, ci)
    (short,) = log_texts([row], [nested]).values()
    texts = log_texts([row], [nested], margins=True, uncertainty=True)
    assert list(texts) == ["eval_sft_seed0.log"]
    (text,) = texts.values()
    accuracy = f"accuracy: {row['accuracy']:.4f} [{row['accuracy_low']:.4f}, {row['accuracy_high']:.4f}]"
    assert accuracy in short and accuracy in text
    assert "margin_wrong_p5: " in text and "margin" not in short.replace("auc_margin", "").replace("larger margin", "")
    assert "score_entropy: " in text and "score_entropy" not in short
    assert "subset hard: " in short and "mean_at_3: " in short


def test_our_logs_are_read_like_those_of_older_runs(tmp_path: Path) -> None:
    cells = [drawn_cell(5), dataclasses.replace(drawn_cell(6), dataset="other")]
    found = [Measured(cell, HOW) for cell in cells]
    both = [(scalars(m, ci), details(m, ci)) for m, ci in zip(found, intervals(found, 200, 0), strict=True)]
    texts = log_texts([row for row, _ in both], [nested for _, nested in both], margins=True, uncertainty=True)
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    read = read_logs([tmp_path / name for name in texts])
    assert [one["dataset"] for one in read.evals] == ["test", "other"]
    names = ("accuracy", "accuracy_low", "strict_accuracy", "tie_rate", "bt_log_loss", "unparsed_rate", "margin_p5")
    for one, (row, _) in zip(read.evals, both, strict=True):
        assert {n: one[n] for n in names} == pytest.approx({n: row[n] for n in names}, abs=5e-5)
        assert (one["n_pairs"], one["n_samples"], one["seed"]) == (40, 3, 0)


def run_evaluate(root: Path, rows: list[Judgement], **settings: Any) -> RunManifest:
    write_judgements(root / "j.parquet", rows)
    write_pairs(root / "p.parquet", made_pairs())
    values = {"judgements": str(root / "j.parquet"), "pairs": str(root / "p.parquet"), **settings}
    prepared = prepare("evaluate", EvaluateConfig.build(values), Resources(), root)
    request = prepared.directory / "stage.json"
    write_json(request, prepared.request.model_dump(mode="json"))
    return execute(request)


def test_the_stage_writes_rows_details_and_logs(tmp_path: Path) -> None:
    pairs = made_pairs()
    rows = [answer(p, side, score=10.0 + side, judge=j) for j in ("base", "a/b") for p in pairs for side in (0, 1)]
    manifest = run_evaluate(tmp_path, rows)
    assert sorted(manifest.outputs) == [
        "details.jsonl",
        "eval.jsonl",
        "logs/eval_a_b_seed0.log",
        "logs/eval_base_seed0.log",
    ]
    evals = [row for _, row in read_jsonl(tmp_path / "evaluate" / "eval.jsonl")]
    nested = [row for _, row in read_jsonl(tmp_path / "evaluate" / "details.jsonl")]
    assert [row["checkpoint"] for row in evals] == [row["checkpoint"] for row in nested] == ["base", "a/b"]
    assert (evals[0]["accuracy"], evals[0]["n_pairs"], evals[0]["n_label_ties"]) == (0.5, 2, 1)
    assert evals[0]["longer_wins"] == 0.5 and evals[0]["within_variance"] is None  # nothing was asked twice
    assert "Infinity" not in (tmp_path / "evaluate" / "eval.jsonl").read_text()


def test_asking_for_more_in_the_logs_writes_them_again(tmp_path: Path) -> None:
    rows = [answer(pair, side, score=10.0 + side) for pair in made_pairs() for side in (0, 1)]
    run_evaluate(tmp_path, rows)
    log = tmp_path / "evaluate" / "logs" / "eval_sft_seed0.log"
    assert "score_entropy" not in log.read_text()
    run_evaluate(tmp_path, rows, report_uncertainty=True, report_margins=True)
    assert "score_entropy" in log.read_text() and "loss_p99" in log.read_text()


def test_without_pairs_there_are_no_lengths(tmp_path: Path) -> None:
    rows = [answer(pair, side, score=10.0 + side) for pair in made_pairs() for side in (0, 1)]
    run_evaluate(tmp_path, rows, pairs=None)
    ((_, row),) = read_jsonl(tmp_path / "evaluate" / "eval.jsonl")
    assert row["longer_wins"] is None and row["accuracy"] == 0.5


def test_a_run_that_was_judged_without_pairs_is_judged_again_first(tmp_path: Path) -> None:
    rows = [answer(pair, side, score=10.0 + side) for pair in made_pairs() for side in (0, 1)]
    manifest = run_evaluate(tmp_path, rows)
    (tmp_path / "judge").mkdir()
    judged = manifest.model_copy(
        update={"stage": "judge", "outputs": {"judgements.parquet": Output(sha256="", bytes=0)}}
    )
    write_json(tmp_path / "judge" / "manifest.json", judged.model_dump(mode="json"))
    again = rf"@judge/pairs\.parquet: an older btrm did not write it.*btrm\.submit judge --run {tmp_path}"
    with pytest.raises(ConfigError, match=again):
        prepare("evaluate", EvaluateConfig(), Resources(), tmp_path, "evaluate")


def test_longer_wins_on_real_pairs_and_a_judge_that_goes_by_length(tmp_path: Path, shared_data: Path) -> None:
    """On harmless-base, 44.5 % of the preferred replies are the longer ones."""
    files = [shared_data / "hh-rlhf" / "harmless-base.half.jsonl.gz"]
    pairs = list(iter_pairs("anthropic_hh", "test", data_files=files))
    cell = Cell("x", "base", "m", None, get_prompt("hh_score100_v1"), Sampling(1, 1, 0, 0), 1, 0)
    judge = RuleJudge(lambda response, *_: min(100.0, len(response) // 10), cell.prompt)
    write_judgements(tmp_path / "j.parquet", judgements(cell, judge, pairs))
    write_pairs(tmp_path / "p.parquet", pairs)
    (read,) = read_cells(tmp_path / "j.parquet", tmp_path / "p.parquet")
    row = row_of(read)
    assert row["n_pairs"] == len(pairs) > 1000
    assert row["longer_wins"] == pytest.approx(0.445, abs=0.03)
    assert row["length_correlation"] > 0.9
    assert row["accuracy"] == pytest.approx(row["longer_wins"], abs=0.02)  # a few are equal in tens of characters
    assert row["accuracy_low"] < row["longer_wins"] < row["accuracy_high"]
    assert (row["bt_log_loss"] > row["fitted_log_loss"]) and row["fitted_log_loss"] == pytest.approx(math.log(2))


def test_answers_that_fail_make_no_judge_better_calibrated() -> None:
    rng = np.random.default_rng(4)
    margin = np.where(rng.random(400) < 0.6, 1.0, -1.0) * rng.integers(1, 90, 400)
    score = from_margins(margin)
    half = np.where((np.arange(400) % 2 == 0)[:, None, None], score, np.nan)
    whole, failed = (Measured(made_cell(s), HOW) for s in (score, half))
    assert sum(b.n for b in whole.reliability) == 400 and sum(b.n for b in failed.reliability) == 200
    scored = failed.fitted.confidence_P[::2]
    assert sum(b.n * b.chance for b in failed.reliability if b.n) == pytest.approx(scored.sum())
    place = np.minimum(((scored - 0.5) * 20).astype(int), 9)
    gaps = np.bincount(place, scored - (margin[::2] > 0), 10)
    assert row_of(failed.cell)["ece"] == pytest.approx(np.abs(gaps).sum() / 200)  # ties at 1/2 would halve it


def test_copies_of_an_expected_score_are_one_answer() -> None:
    score = np.repeat(np.random.default_rng(0).normal(50, 9, (40, 2, 1)), 3, axis=2)
    cell = dataclasses.replace(made_cell(score), method="expected")
    found = Measured(cell, HOW)
    row, nested = scalars(found, intervals([found], 100, 0)[0]), details(found, intervals([found], 100, 0)[0])
    names = ("score_entropy", "score_support", "within_variance", "between_variance", "intraclass_correlation")
    assert all(math.isnan(row[name]) for name in names) and nested["mean_at_k"] == []
    drawn = dataclasses.replace(cell, score_P2K=score + np.random.default_rng(1).normal(0, 1, score.shape))
    assert row_of(drawn)["within_variance"] == pytest.approx(1, abs=0.3)  # expected, behind sampled reasoning


def test_pairs_of_which_a_side_was_not_asked_about_are_counted_apart() -> None:
    cell = made_cell(np.tile([[[80.0], [20.0]]], (5, 1, 1)))
    cell.score_P2K[0, 1], cell.asked_P2[0, 1] = np.nan, 0
    cell = dataclasses.replace(cell, outcome_R=cell.outcome_R[1:], pair_R=cell.pair_R[1:])
    found = Measured(cell, HOW)
    of_cell = intervals([found], 100, 0)[0]
    row = scalars(found, of_cell)
    assert (row["n_half_judged"], row["unparsed_rate"], row["coverage"]) == (1, 0.0, 0.8)
    assert row["aligned_accuracy"] == row["allpairs_accuracy"] == 1.0
    (log,) = log_texts([row], [details(found, of_cell)]).values()
    assert "n_half_judged: 1  (pairs of which a side" in log and "n_contexts: 5  (few: intervals are rough; " in log


def test_the_official_score_has_its_interval() -> None:
    row = row_of(drawn_cell(5))
    assert math.isnan(row["official_low"]) and math.isnan(row["official_high"])  # no benchmark's pairs
    scored = Measured(drawn_cell(5), HOW)
    scored.__dict__["official"] = [OfficialScore("made", 0.7, 40, 0.6, 0.8)]
    row = scalars(scored, intervals([scored], 100, 0)[0])
    assert (row["official_score"], row["official_low"], row["official_high"]) == (0.7, 0.6, 0.8)


def test_ties_alone_are_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no judgement of a pair with a label"):
        run_evaluate(tmp_path, [answer(made_pairs()[2], side) for side in (0, 1)])


def test_bounds_of_uncertainty_are_in_order() -> None:
    with pytest.raises(ConfigError, match=r"unc_low 50\.0 lies above unc_high 40\.0"):
        EvaluateConfig.build({"unc_low": 50, "unc_high": 40})


@pytest.mark.parametrize("unparsed", ["tie", "wrong", "drop"])
@pytest.mark.parametrize("score", [np.nan, 60.0])
@pytest.mark.parametrize("pairs", [1, 2])
def test_a_cell_of_one_pair_or_without_any_score_is_measured(pairs: int, score: float, unparsed: UnparsedAs) -> None:
    found = Measured(
        made_cell(np.tile([[[score], [40.0]]], (pairs, 1, 1))), dataclasses.replace(HOW, unparsed=unparsed)
    )
    (of_cell,) = intervals([found], 100, 0)
    row, nested = scalars(found, of_cell), details(found, of_cell)
    scored = score == score
    assert row["coverage"] == float(scored)
    expected = 1.0 if scored else {"tie": 0.5, "wrong": 0.0, "drop": math.nan}[unparsed]
    assert row["accuracy"] == pytest.approx(expected, nan_ok=True)
    assert row["allpairs_accuracy"] == pytest.approx(expected, nan_ok=True)
    assert row["aligned_accuracy"] == pytest.approx(expected, nan_ok=True)
    assert nested["mean_at_k"] == nested["majority_at_k"] == [] and math.isnan(row["within_variance"])
    assert math.isnan(row["fitted_log_loss"]) == (pairs == 1 or (not scored and unparsed == "drop"))
    assert log_texts([row], [nested], margins=True, uncertainty=True)
