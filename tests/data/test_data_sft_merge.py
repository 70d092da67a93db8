from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_judgements import judgement

from btrm import stages
from btrm.config import ConfigError
from btrm.data.merge import Merge, verdicts
from btrm.data.sft_data import SftDataConfig
from btrm.launch.flags import Parser, add_config_flags, assignments
from btrm.launch.local import write_request
from btrm.prompts import get_prompt
from btrm.records import Judgement, PreferencePair, read_jsonl, write_judgements, write_pairs
from btrm.runs import Resources, RunManifest, fingerprint
from btrm.scores import SCALES, parse_score
from btrm.stage_inputs import references

PAIRS = [
    PreferencePair.make(f"context {n}", (f"x{n}", f"y{n}" * (n + 1)), n % 2, source="s", split="train")
    for n in range(4)
]
Scores = list[tuple[float | None, float | None]]
S = SCALES["score100"]


def judged(pair: PreferencePair, side: int, sample: int, score: float | None, **changes: Any) -> Judgement:
    return judgement(pair, side, sample, score, **{"completion": f"reason {sample}: {score}", "judge": "t", **changes})


def answers(scores: Scores, pair: PreferencePair = PAIRS[0], **changes: Any) -> list[Judgement]:
    return [judged(pair, side, n, s[side], **changes) for n, s in enumerate(scores) for side in (0, 1)]


def merged(merge: Merge, scores: Scores) -> tuple[list[float | None], list[str]]:
    """Return both sides' scores, and what was left out and why."""
    samples: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in answers(scores):
        values = {"side": row.side, "score": row.score, "outcome": row.outcome, "completion": row.completion}
        samples.setdefault((0, row.sample), []).append(values)
    (verdict,) = verdicts(merge, samples, S)
    return [None if s is None else s.score for s in verdict.sides], [reason for _, reason in verdict.left_out]


@pytest.mark.parametrize(
    ("merge", "scores", "expected", "reasons"),
    [
        ("mean", [(80, 20), (91, 31), (70, 26)], [80, 26], []),  # 241 / 3, 77 / 3
        ("mean", [(80, 20), (91, 31)], [86, 26], []),  # a half goes up
        ("mean", [(90, 10), (None, 80)], [90, 10], ["unparsed", "unpaired"]),  # 45 on the second side is nobody's
        ("mean", [(80, None), (None, 20), (70, None)], [75, 20], ["unparsed"] * 3),  # there is no whole sample
        ("mean", [(None, 20)], [None, 20], ["unparsed"]),
        ("vote", [(80, 20), (60, 40), (10, 90)], [70, 30], ["outvoted"] * 2),
        ("vote", [(80, 20), (10, 90)], [50, 50], []),  # one each: a tie at the median of all four
        ("vote", [(70, 70), (60, 60), (50, 40)], [50, 40], ["outvoted"] * 4),  # equal scores vote for neither
        ("vote", [(70, 70)], [70, 70], []),
        ("vote", [(71, 70), (70, 69)], [71, 70], []),  # medians of 70.5 and 69.5: what is won stays won
        ("vote", [(None, 20), (90, 10)], [90, 10], ["unparsed", "unpaired"]),  # a sample with one score has no vote
        ("vote", [(70, 70), (90, None)], [70, 70], ["unparsed", "unpaired"]),
        ("vote", [(80, None), (None, 20)], [80, 20], ["unparsed"] * 2),  # nobody votes
    ],
)
def test_scores_of_several_samples(merge: Merge, scores: Scores, expected: list[Any], reasons: list[str]) -> None:
    found, left_out = merged(merge, scores)
    assert found == expected and sorted(left_out) == sorted(reasons)


def test_a_vote_is_the_median_of_those_who_voted_with_the_majority() -> None:
    scores: Scores = [(80, 20), (95, 3), (61, 59), (7, 90), (66, 50)]
    won = [s for s in scores if s[0] is not None and s[1] is not None and s[0] > s[1]]
    assert merged("vote", scores)[0] == [statistics.median(s[side] for s in won) for side in (0, 1)]


def test_a_margin_is_as_wide_as_its_numerals_say(tmp_path: Path) -> None:
    assert 4.1 - 3.6 < 0.5
    rows = [row for pair in PAIRS for row in answers([(4.1, 3.6)], pair, prompt="hh_score5_v1")]
    fields = {"prompt": "hh_score5_v1", "min_margin": 0.5}
    assert len(run(tmp_path, rows, **fields)[1]) == 8
    with pytest.raises(ConfigError, match="'dropped_small_margin': 8"):
        run(tmp_path / "more", rows, **fields | {"min_margin": 0.6})


def run(
    root: Path, *teachers: list[Judgement], of: list[PreferencePair] = PAIRS, **fields: Any
) -> tuple[RunManifest, list[Any], list[Any]]:
    root.mkdir(exist_ok=True)
    write_pairs(root / "pairs.parquet", of)
    for n, rows in enumerate(teachers):
        write_judgements(root / f"{n}.parquet", rows)
    paths = [str(root / f"{n}.parquet") for n in range(len(teachers))]
    values = {"pairs": str(root / "pairs.parquet"), "judgements": paths, "prompt": "hh_score100_v1", **fields}
    config = SftDataConfig.build(values)
    manifest = stages.execute(write_request(stages.prepare("sft_data", config, Resources(), root / "run")))
    rows, drops = (
        [row for _, row in read_jsonl(root / "run/sft_data" / name)] for name in ("sft.jsonl", "dropped.jsonl")
    )
    return manifest, rows, drops


def teacher(judge: str, scores: Scores) -> list[Judgement]:
    """The same scores about each pair, turned to the side that its label prefers."""
    turned: list[Scores] = [[(s[p.preferred or 0], s[1 - (p.preferred or 0)]) for s in scores] for p in PAIRS]
    return [row for p, s in zip(PAIRS, turned, strict=True) for row in answers(s, p, judge=judge)]


def test_two_teachers_stand_apart_by_their_judge(tmp_path: Path) -> None:
    _, rows, _ = run(tmp_path, teacher("a", [(80, 20)]), teacher("b", [(70, 30)]))
    assert len({(row["label_id"], row["side"], row["sample"], row["judge"]) for row in rows}) == len(rows) == 16
    _, rows, _ = run(tmp_path / "same", teacher("a", [(80, 20)]), teacher("a", [(70, 30)]))
    assert {row["judge"] for row in rows} == {"a #1", "a #2"}


def test_dropped_and_merged_answers_name_their_teacher_too(tmp_path: Path) -> None:
    same = teacher("a", [(80, 20)]), teacher("a", [(70, None)])
    manifest, rows, drops = run(tmp_path, *same, merge="mean")
    assert {row["judge"] for row in rows} == {"a #1"} and {drop["judge"] for drop in drops} == {"a #2"}
    assert manifest.results["dropped"] == {"unparsed": 4, "unpaired": 4}
    apart = teacher("a", [(80, 20)]), teacher("a", [(72, 28)])
    assert {row["judge"] for row in run(tmp_path / "near", *apart, merge="vote")[1]} == {"a #1"}


def test_each_of_several_teachers_has_its_own_figures(tmp_path: Path) -> None:
    fewer = [row for row in teacher("b", [(50, 50)]) if row.pair_id != PAIRS[0].pair_id]
    manifest, _, _ = run(tmp_path, teacher("a", [(80, 20)]), fewer, merge="mean")
    good, tied = manifest.results["teachers"]
    assert good["judge"] == "a" and (good["labelled"], good["accuracy"], good["tie_rate"]) == (4, 1, 0)
    assert tied["judge"] == "b" and (tied["labelled"], tied["accuracy"], tied["tie_rate"]) == (3, 0.5, 1)
    assert manifest.results["judged_by_all"] == 3
    text = (tmp_path / "run/sft_data/teacher.md").read_text()
    assert (
        "| a | 4 | 100.00% | 100.00% to 100.00% | 0.00% | 100.00% |" in text and "3 labels were judged by all" in text
    )
    assert "on the 3 pairs that have all 2 samples" in text
    manifest, _, _ = run(tmp_path / "alone", teacher("a", [(80, 20)]))
    assert "teachers" not in manifest.results


def test_how_often_the_response_shown_first_wins_is_told(tmp_path: Path) -> None:
    scores: Scores = [(80, 20), (30, 60), (50, 50), (90, None)]  # side 0 is shown first: 1, 0, 1/2, and no comparison
    rows = [replace(row, layout="pairwise", shown_first=row.side == 0) for p in PAIRS for row in answers(scores, p)]
    rows += [replace(row, layout="pairwise", shown_first=row.side == 1, sample=4) for row in answers([(1, 9)])]
    manifest, _, _ = run(tmp_path, rows)
    results = manifest.results
    assert (results["pairwise_answers"], results["shown_first_wins"]) == (13, pytest.approx(7 / 13, abs=1e-6))
    assert results["shown_first_wins_low"] <= 7 / 13 <= results["shown_first_wins_high"]
    text = (tmp_path / "run/sft_data/teacher.md").read_text()
    assert "| the response shown first wins (13) | 53.85% (95 %: " in text
    assert run(tmp_path / "apart", teacher("a", [(80, 20)]))[0].results["shown_first_wins"] is None


def relabelled(pair: PreferencePair, label: str, preferred: int) -> PreferencePair:
    return replace(pair, label_id=f"{pair.pair_id}-{label}", preferred=preferred)


def test_judgements_of_one_label_serve_the_other_labels_of_the_pair(tmp_path: Path) -> None:
    of = [*PAIRS, relabelled(PAIRS[0], "second", 1)]  # the second person differs
    manifest, rows, drops = run(tmp_path, teacher("a", [(80, 20)]), of=of, filter_correct=True)
    assert [row["label_id"] for row in rows] == [p.label_id for p in PAIRS for _ in (0, 1)]
    assert [(d["label_id"], d["judged_as"], d["reason"]) for d in drops] == [
        (of[-1].label_id, PAIRS[0].label_id, "wrong")
    ] * 2
    manifest, rows, drops = run(tmp_path / "all", teacher("a", [(80, 20)]), of=of)
    assert len(rows) == 10 and not drops and manifest.results["joined_by_pair"] == 2
    assert len({(row["label_id"], row["side"]) for row in rows}) == 10
    assert manifest.results["teacher_accuracy"] == 0.8


def test_a_labels_own_judgements_go_before_those_of_its_pair(tmp_path: Path) -> None:
    second = relabelled(PAIRS[0], "second", 1)
    made = [*teacher("a", [(80, 20)]), *answers([(30, 40)], second, judge="a")]
    _, rows, drops = run(tmp_path / "both", made, of=[*PAIRS, second])
    assert [row["messages"][-1]["content"][:9] for row in rows[-2:]] == ["<s>30</s>", "<s>40</s>"] and not drops
    _, rows, drops = run(tmp_path / "one", made)
    assert [row["messages"][-1]["content"][:9] for row in rows[:2]] == ["<s>80</s>", "<s>20</s>"]
    assert [(d["label_id"], d["reason"]) for d in drops] == [(second.label_id, "judged_on_another_label")] * 2


def test_teachers_of_other_labels_merge_by_their_pairs(tmp_path: Path) -> None:
    renamed = [relabelled(pair, "other", pair.preferred or 0) for pair in PAIRS]
    of_other = [
        replace(row, label_id=other.label_id, judge="b")
        for row, other in zip(teacher("a", [(60, 40)]), [p for p in renamed for _ in (0, 1)], strict=True)
    ]
    for of in (PAIRS, renamed):
        _, rows, drops = run(tmp_path / of[0].label_id, teacher("a", [(80, 20)]), of_other, of=of, merge="mean")
        assert [(row["label_id"], row["answers"]) for row in rows] == [(p.label_id, 2) for p in of for _ in (0, 1)]
        assert rows[0]["messages"][-1]["content"].startswith("<s>70</s>") and not drops


@pytest.mark.parametrize("merge", ["none", "mean", "vote"])
def test_every_judgement_is_in_a_row_or_dropped_with_its_reason(tmp_path: Path, merge: Merge) -> None:
    both = teacher("a", [(80, 20), (30, 60), (90, None)]), teacher("b", [(70, 30), (50, 50), (66, 65)])
    fields = {"merge": merge, "min_margin": 10.0, "filter_correct": True, "include_both_sides": False}
    manifest, rows, drops = run(tmp_path, *both, **fields)
    behind = sum(row.get("answers", 1) for row in rows)
    assert behind + len(drops) == sum(map(len, both)) and all(drop["reason"] for drop in drops)
    assert manifest.results["dropped"] == {r: sum(d["reason"] == r for d in drops) for r in manifest.results["dropped"]}


def test_filters_go_by_the_merged_scores(tmp_path: Path) -> None:
    wrong_once = teacher("a", [(80, 20), (30, 60)])  # right on average
    _, rows, drops = run(tmp_path / "mean", wrong_once, merge="mean", filter_correct=True)
    assert len(rows) == 8 and not drops
    assert rows[0]["messages"][-1]["content"] == "<s>55</s>\nreason 0: 80"  # as near as sample 1's, and before it
    _, rows, drops = run(tmp_path / "none", wrong_once, filter_correct=True)
    assert len(rows) == 8 and {drop["reason"] for drop in drops} == {"wrong"}


@pytest.mark.parametrize(
    "analysis",
    ["<<s>s>9</s>", "<s>100</s> so", "a </s><s>", "</<s></s>s>5<s>", "<s><s>9</s></s>", "<s", "s>4</s>", "<s>9"],
)
@pytest.mark.parametrize("prompt", ["hh_score100_v1", "hh_score100_v3", "hh_score100_scoreonly"])
def test_the_tag_stands_once_whatever_the_analysis_says(tmp_path: Path, analysis: str, prompt: str) -> None:
    rows = [judged(PAIRS[0], side, 0, 73.0 + side, completion=analysis) for side in (0, 1)]
    for row, score in zip(run(tmp_path, rows, prompt=prompt)[1], (73, 74), strict=True):
        text = row["messages"][-1]["content"]
        assert text.count("<s>") == text.count("</s>") == 1
        assert parse_score(text, get_prompt(prompt).parser).value == score


def test_teachers_of_other_pairs_and_scales_are_refused_by_their_files(tmp_path: Path) -> None:
    other = PreferencePair.make("elsewhere", ("x", "y"), 0, source="s", split="train")
    good = teacher("a", [(80, 20)])
    with pytest.raises(ConfigError, match=r"0\.parquet: judges none of the pairs that .*1\.parquet judges"):
        run(tmp_path, good, answers([(1, 2)], other, judge="b"))
    with pytest.raises(ConfigError, match=r"1\.parquet: judged with hh_score5_v1 on the scale score5"):
        run(tmp_path, good, answers([(1, 2)], judge="b", prompt="hh_score5_v1"))
    with pytest.raises(ConfigError, match="each once"):
        SftDataConfig.build({"judgements": ["a", "a"]})


def test_what_was_made_before_there_was_a_merge_is_the_same_run() -> None:
    old = {"prompt": "toy_score100", "filter_correct": False, "min_margin": None, "include_both_sides": True}
    old |= {"drop_ties": False, "seed": 0}
    identity = SftDataConfig().by_role("setting")
    assert fingerprint("sft_data", identity, {}) == fingerprint("sft_data", old, {})
    assert SftDataConfig(judgements=("j.parquet",)).model_dump(mode="json")["judgements"] == "j.parquet"
    assert SftDataConfig(merge="vote").by_role("setting")["merge"] == "vote"
    assert references(SftDataConfig(judgements=("a", "b")))[:2] == [("judgements", "a"), ("judgements", "b")]


def test_flags_take_several_teachers() -> None:
    parser = Parser()
    add_config_flags(parser, SftDataConfig)
    given = assignments(parser.parse_args(["--judgements", "@one/j.parquet,@two/j.parquet", "--merge", "vote"]))
    config = SftDataConfig().override(given)
    assert config.sources == ("@one/j.parquet", "@two/j.parquet") and config.merge == "vote"
    assert SftDataConfig().override(["judgements=j.parquet"]).judgements == "j.parquet"


def test_the_page_and_the_results_say_what_the_teachers_are_worth(tmp_path: Path) -> None:
    manifest, _, _ = run(tmp_path, teacher("a", [(80, 20), (70, 30), (30, 60)]))
    results = manifest.results
    assert results["teacher_accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert results["teacher_accuracy_low"] == results["teacher_accuracy_high"] == results["teacher_accuracy"]
    assert results["majority_accuracy"] == [[1, 4, 0.666667], [2, 4, 0.666667], [3, 4, 1.0]]
    assert results["longer_wins_accuracy"] == (0.5 + 1 + 0 + 1) / 4
    text = (tmp_path / "run/sft_data/teacher.md").read_text()
    assert "| accuracy, ties half | 66.67% (95 %: 66.67% to 66.67%) |" in text and "| 3 | 4 | 100.00% |" in text
    assert "teacher.md" in manifest.outputs and json.dumps(results)
