from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from btrm import stages
from btrm.config import ConfigError
from btrm.data.sft_data import SftDataConfig
from btrm.launch.local import write_request
from btrm.records import Judgement, PreferencePair, read_jsonl, write_judgements, write_pairs
from btrm.runs import Resources, RunManifest

PAIRS = [
    PreferencePair.make(f"context {n}", (f"x{n}", f"y{n}"), preferred, source="s", split="train")
    for n, preferred in enumerate([0, 1, 0, None, 1])
]


def judged(pair: PreferencePair, side: int, score: float | None, **changes: Any) -> Judgement:
    made = Judgement(
        label_id=pair.label_id,
        pair_id=pair.pair_id,
        side=side,
        sample=0,
        preferred_side=pair.preferred,
        split="train",
        judge="t",
        model_hash="",
        adapter_hash=None,
        prompt="hh_score100_v1",
        method="sampled",
        seed=0,
        completion=f"<s>{score}</s> because <s> it is",
        score=score,
        outcome="scored" if score is not None else "unparsed",
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=1,
    )
    return replace(made, **changes)


def answers() -> list[Judgement]:
    """Right, wrong, tied, on a tied label, and unparsed on side 0; not in the order of the pairs."""
    scores: list[tuple[float | None, float | None]] = [(90, 10), (90, 10), (50, 50), (60, 40), (None, 70)]
    made = [judged(p, side, s[side]) for p, s in zip(PAIRS, scores, strict=True) for side in (1, 0)]
    return made[::-1]


def run(
    root: Path, judgements: list[Judgement] | None = None, **fields: Any
) -> tuple[RunManifest, list[Any], list[Any]]:
    root.mkdir(exist_ok=True)
    write_pairs(root / "pairs.parquet", PAIRS)
    write_judgements(root / "judgements.parquet", answers() if judgements is None else judgements)
    paths = {"pairs": str(root / "pairs.parquet"), "judgements": str(root / "judgements.parquet")}
    config = SftDataConfig.build({**paths, "prompt": "hh_score100_v1", **fields})
    manifest = stages.execute(write_request(stages.prepare("sft_data", config, Resources(), root / "run")))
    rows, drops = (
        [row for _, row in read_jsonl(root / "run/sft_data" / name)] for name in ("sft.jsonl", "dropped.jsonl")
    )
    return manifest, rows, drops


def kept(rows: list[Any]) -> list[tuple[str, int]]:
    return [(row["label_id"], row["side"]) for row in rows]


def both(*numbers: int) -> list[tuple[str, int]]:
    return [(PAIRS[n].label_id, side) for n in numbers for side in (0, 1)]


def test_judgements_join_by_label_and_the_tag_stands_once(tmp_path: Path) -> None:
    manifest, rows, drops = run(tmp_path)
    assert kept(rows) == [*both(0, 1, 2, 3), (PAIRS[4].label_id, 1)]
    user, assistant = rows[1]["messages"]
    assert "context 0" in user["content"] and "y0" in user["content"]
    assert assistant == {"role": "assistant", "content": "<s>10</s>\nbecause  it is"}
    assert all(row["messages"][-1]["content"].count("<s>") == 1 for row in rows)
    assert [(d["label_id"], d["side"], d["reason"]) for d in drops] == [(PAIRS[4].label_id, 0, "unparsed")]
    expected = {
        "rows": 9,
        "judged_pairs": 5,
        "teacher_accuracy": (1 + 0 + 0.5 + 0) / 4,  # the tied label has none; unparsed counts against
        "teacher_strict_accuracy": 1 / 4,
        "teacher_tie_rate": 0.2,
        "teacher_coverage": 0.8,
        "outcomes": {"scored": 9, "unparsed": 1},
        "score_histogram": [0, 2, 0, 0, 1, 2, 1, 1, 0, 2],
        "longer_wins_accuracy": 0.5,
        "majority_accuracy": [[1, 4, 0.375]],
        "dropped": {"unparsed": 1},
    }
    assert {name: manifest.results[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "left", "reasons"),
    [
        ({"filter_correct": True}, both(0), {"wrong": 4, "label_is_tie": 2, "unparsed": 1, "other_side_unscored": 1}),
        ({"min_margin": 30}, both(0, 1), {"small_margin": 4, "unparsed": 1, "other_side_unscored": 1}),
        ({"drop_ties": True}, both(0, 1, 3), {"tie": 2, "unparsed": 1, "other_side_unscored": 1}),
    ],
)
def test_filters_write_down_what_they_drop(
    tmp_path: Path, fields: dict[str, Any], left: list[tuple[str, int]], reasons: dict[str, int]
) -> None:
    manifest, rows, drops = run(tmp_path, **fields)
    assert kept(rows) == left and manifest.results["dropped"] == reasons
    assert len(rows) + len(drops) == len(answers())


def test_one_side_a_pair_is_drawn_by_seed(tmp_path: Path) -> None:
    drawn = [kept(run(tmp_path / str(seed), include_both_sides=False, seed=seed)[1]) for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len({tuple(d) for d in drawn}) > 1
    assert all(len({label for label, _ in d}) == len(d) for d in drawn)


def test_a_reason_stands_where_the_students_prompt_wants_it(tmp_path: Path) -> None:
    rows = run(tmp_path / "last", prompt="hh_score100_v3")[1]
    assert rows[0]["messages"][-1]["content"] == "because  it is\n<s>90</s>"
    rows = run(tmp_path / "alone", prompt="hh_score100_scoreonly")[1]
    assert rows[0]["messages"][-1]["content"] == "<s>90</s>"


def test_rows_without_a_reason_are_counted_where_the_student_should_give_one(tmp_path: Path) -> None:
    rows = [judged(PAIRS[0], 0, 7.0, completion="<s>7</s>"), judged(PAIRS[0], 1, 8.0)]
    for prompt, bare in (("hh_score100_v3", 1), ("hh_score100_v1", 1), ("hh_score100_scoreonly", 0)):
        manifest, kept_rows, _ = run(tmp_path / prompt, rows, prompt=prompt)
        assert manifest.results["without_reason"] == bare and len(kept_rows) == 2
        page = (tmp_path / prompt / "run/sft_data/teacher.md").read_text()
        assert ("1 of the rows have a score without a reason" in page) == bool(bare)


def test_the_directory_of_a_stage_stands_for_its_judgements(tmp_path: Path) -> None:
    assert len(run(tmp_path, judgements=None)[1]) == 9
    config = SftDataConfig.build({"judgements": str(tmp_path)})
    assert config.judgements == str(tmp_path / "judgements.parquet")
    both = SftDataConfig.build({"judgements": ["@teacher", "@other/", "@third/judgements.parquet"]})
    assert both.sources == tuple(f"@{name}/judgements.parquet" for name in ("teacher", "other", "third"))
    with pytest.raises(ConfigError, match="each once"):
        SftDataConfig.build({"judgements": [str(tmp_path), str(tmp_path / "judgements.parquet")]})


def test_several_samples_each_become_rows(tmp_path: Path) -> None:
    again = [replace(a, sample=1, score=30.0, outcome="scored") for a in answers()]
    manifest, rows, _ = run(tmp_path, answers() + again)
    assert manifest.results["judged_pairs"] == 10 and len(rows) == 9 + 10


def test_judgements_of_no_pair_are_written_down(tmp_path: Path) -> None:
    other = PreferencePair.make("elsewhere", ("x", "y"), 0, source="s", split="train")
    manifest, _, drops = run(tmp_path, [*answers(), judged(other, 0, 5)])
    assert manifest.results["dropped"]["no_such_pair"] == 1 and drops[-1]["label_id"] == other.label_id


@pytest.mark.parametrize(
    ("judgements", "fields", "problem"),
    [
        (None, {"prompt": "hh_score5_v1"}, "judged with hh_score100_v1 on the scale score100; prompt hh_score5_v1 has"),
        (
            [judged(PAIRS[0], 0, 5, pair_id="other")],
            {},
            "judgements.parquet: label_id .* judged as pair other, among the pairs it is",
        ),
        ([judged(PAIRS[0], 0, 5), judged(PAIRS[0], 0, 6)], {}, "stands twice"),
        ([judged(PAIRS[0], 0, None)], {}, "no judgement is left to learn from: {'dropped_unparsed': 1}"),
        ([], {}, "no judgement is left to learn from: none was made"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(
    tmp_path: Path, judgements: list[Judgement] | None, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        run(tmp_path, judgements, **fields)
