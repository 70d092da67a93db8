from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hostile_responses import (
    FORMS,
    LAYOUTS,
    Said,
    answered,
    by_label,
    calls_of,
    keys_of,
    meant,
    pair_of,
    settings,
    written,
)

from btrm.data.toy import toy_pairs
from btrm.judges.base import Sampling
from btrm.judges.cells import Cell
from btrm.judges.numbered import Pairs
from btrm.prompts import PROMPTS, get_prompt
from btrm.publishing import write_json
from btrm.records import read_judgements, write_pairs
from btrm.runs import Resources
from btrm.scores import parse_score
from btrm.stages import execute, prepare
from btrm.teacher.base import Call, RowKey, Usage
from btrm.teacher.config import TeacherConfig
from btrm.teacher.journal import Entry
from btrm.teacher.layouts import make_calls
from btrm.teacher.rows import Owed, judgements

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
PAIRS = {n: pair_of(n, f"one {n}", f"two {n}") for n in range(6)}


def cell(prompt: str = "hh_score100_v3", n_samples: int = 1) -> Cell:
    return Cell("part", "rule", "rule", None, get_prompt(prompt), Sampling(1.0, 1.0, 0, 9), n_samples, 0)


def reasoned(call: Call) -> Entry:
    return answered(call, written(call, [Said("<s>1</s>Good </s>enough.<s>")] * len(call.items)))


def test_each_item_has_a_row_with_its_share_of_the_call() -> None:
    call = calls_of(settings("batched", "tags"), PAIRS)[0]
    entry = replace(reasoned(call), usage=Usage(10, 7, 3, 0), usd=0.4)
    rows = list(judgements(entry, cell(), by_label(PAIRS)))
    assert [(row.label_id, row.side) for row in rows] == [(item.label_id, item.side) for item in call.items]
    assert (sum(row.prompt_tokens for row in rows), sum(row.completion_tokens for row in rows)) == (13, 7)
    assert [row.cost_usd for row in rows] == [0.1] * 4
    assert {(row.layout, row.shown_first, row.request_hash) for row in rows} == {("batched", None, "hash")}
    assert len(list(judgements(entry, cell(), by_label({1: PAIRS[1]})))) == 1


def test_the_order_of_a_pair_is_in_its_rows() -> None:
    for call in calls_of(settings("pairwise", "schema"), PAIRS):
        rows = list(judgements(reasoned(call), cell(), by_label(PAIRS)))
        assert [row.shown_first for row in rows] == [True, False]
        assert [row.side for row in rows] == [item.side for item in call.items]


@pytest.mark.parametrize("prompt", [name for name, spec in PROMPTS.items() if spec.scale.name == "score100"])
def test_an_answer_is_put_in_the_prompts_own_form_with_its_analysis(prompt: str) -> None:
    call = calls_of(settings("pointwise", "schema", prompt=prompt), PAIRS)[0]
    (row,) = judgements(reasoned(call), cell(prompt), by_label(PAIRS))
    tag, reason = f"<s>{meant(call)[0]}</s>", "Good enough."
    first = PROMPTS[prompt].style == "score_first"
    assert row.completion == (f"{tag}\n{reason}" if first else f"{reason}\n{tag}")
    assert parse_score(row.completion, PROMPTS[prompt].parser).value == row.score
    bare = answered(call, written(call, [Said("")] * len(call.items)))
    assert [row.completion for row in judgements(bare, cell(prompt), by_label(PAIRS))] == [tag]


@each_layout
@pytest.mark.parametrize(
    ("finish", "outcome"),
    [
        ("stop", "unparsed"),
        ("length", "truncated"),
        ("refusal", "refused"),
        ("content_filter", "filtered"),
        ("error", "error"),
    ],
)
def test_an_answer_without_scores_is_kept_as_an_outcome(layout: str, finish: str, outcome: str) -> None:
    call = calls_of(settings(layout, "tags"), PAIRS)[0]
    rows = list(judgements(answered(call, "I <s>77</s> cannot.", finish), cell(), by_label(PAIRS)))
    assert len(rows) == len(call.items)
    assert {(row.outcome, row.score, row.finish_reason) for row in rows} == {(outcome, None, finish)}
    assert {row.completion for row in rows} == {"I  cannot."}


@each_layout
def test_what_is_owed_shrinks_to_nothing(layout: str) -> None:
    config = settings(layout, "tags", n_samples=2)
    owed = Owed(cell(n_samples=2), Pairs([pair.label_id for pair in PAIRS.values()], len(PAIRS)), PAIRS, part_pairs=2)
    assert list(owed.missing()) == keys_of(PAIRS, 2)
    calls = list(make_calls(config, PAIRS, owed.missing()))
    half = len(calls) // 2
    before = sum(owed.fill(reasoned(call)) for call in calls[:half])
    assert list(make_calls(config, PAIRS, owed.missing())) == calls[half:]
    after = sum(owed.fill(reasoned(call)) for call in calls)  # the first half again: it completes nothing twice
    assert before + after == len(PAIRS) and after
    assert list(owed.missing()) == []


@each_layout
@pytest.mark.parametrize("form", FORMS)
def test_a_stage_gives_the_same_scores_in_every_layout_and_form(layout: str, form: str, tmp_path: Path) -> None:
    pairs = list(islice(toy_pairs("train", 30), 30))
    write_pairs(tmp_path / "train.pairs.parquet", pairs)

    def scores(root: Path, config: TeacherConfig) -> dict[RowKey, Any]:
        prepared = prepare("teacher", config, Resources(), root)
        write_json(prepared.directory / "stage.json", prepared.request.model_dump(mode="json"))
        execute(prepared.directory / "stage.json")
        rows = read_judgements(prepared.directory / "judgements.parquet").to_pylist()
        assert {row["layout"] for row in rows} == {config.call_layout}
        return {(row["label_id"], row["side"], row["sample"]): (row["score"], row["completion"]) for row in rows}

    fields = {"pairs": str(tmp_path / "train.pairs.parquet"), "n_samples": 2, "prompt": "toy_score100", "part_pairs": 7}
    found = scores(tmp_path / "one", settings(layout, form, **fields))
    assert len(found) == 120
    if (layout, form) != ("pointwise", "tags"):
        assert found == scores(tmp_path / "other", settings("pointwise", "tags", **fields))
    # A first run of fewer pairs, which ends in the middle of a batch, changes nothing.
    scores(tmp_path / "grown", settings(layout, form, n_pairs=10, **fields))
    assert found == scores(tmp_path / "grown", settings(layout, form, **fields))
