"""Chosen and rejected conversations: TRL's forms, UltraFeedback, Skywork, ms-swift's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import data_rows
import pytest
from data_rows import said

from btrm.config import ConfigError
from btrm.data.fields import RowError
from btrm.data.items import Query
from btrm.data.sources import Sift, check_query, iter_pairs
from btrm.data.turns import Compared, IncomparableError, compare
from btrm.records import PreferencePair

YES, NO = [said("assistant", "yes ")], [said("assistant", " no")]
U = said("user", "Ask")
TURNS = [U, said("assistant", "What?"), said("user", "That")]
HH = "\n\nHuman: Ask\n\nAssistant:"


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "context"),
    [
        ([U], YES, NO, "Human: Ask"),
        (TURNS, YES, NO, "Human: Ask\n\nAssistant: What?\n\nHuman: That"),
        ([said("system", "Be kind"), U], YES, NO, "System: Be kind\n\nHuman: Ask"),
        (None, [U, *YES], [U, *NO], "Human: Ask"),
        (None, [*TURNS, *YES], [*TURNS, *NO], "Human: Ask\n\nAssistant: What?\n\nHuman: That"),
        ("Ask", [U, *YES], [U, *NO], "Human: Ask"),
        ([U], [U, *YES], [U, *NO], "Human: Ask"),
        ("Ask", [said("system", "s"), U, *YES], [said("system", "s"), U, *NO], "System: s\n\nHuman: Ask"),
        ("Ask", " yes", "no ", "Human: Ask"),
        ("Ask", "Ask yes", "Ask no", "Human: Ask"),
        ("Ask\n", "Ask\nyes", "no", "Human: Ask"),
        ([U], [*YES, U, *YES], [*YES, U, *NO], "Human: Ask\n\nAssistant: yes\n\nHuman: Ask"),
        ([*YES, U], [*YES, U, *YES], [*YES, U, *NO], "Assistant: yes\n\nHuman: Ask"),
        (None, "The sky is yes", "The sky is no", "Human: The sky is"),
        (None, f"{HH} yes", f"{HH} no", "Human: Ask"),
        (HH, " yes", " no", "Human: Ask"),
        ("", "yes", "no", ""),
    ],
)
def test_the_prompt_may_stand_anywhere(prompt: Any, chosen: Any, rejected: Any, context: str) -> None:
    if not context:
        with pytest.raises(IncomparableError, match="no prompt"):
            compare(prompt, chosen, rejected)
        return
    found = compare(prompt, chosen, rejected)
    assert found.context == context and found.rejected == "no"
    assert found.chosen in ("yes", "Ask\nyes")


def test_a_reply_that_only_begins_like_its_prompt_stays_whole() -> None:
    found = compare("Hello", "Hello! How are you?", "Hello")
    assert found == Compared("Human: Hello", "Hello! How are you?", "Hello")
    assert compare("Q: why?\nA: ", "Q: why?\nA: so", "Q: why?\nA: no") == Compared("Human: Q: why?\nA:", "so", "no")


def test_an_implicit_prompt_ends_before_the_first_differing_word() -> None:
    assert compare(None, "The sky is blue.", "The sky is black.") == Compared("Human: The sky is", "blue.", "black.")


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ([U, *YES], [said("user", "Other"), *NO], "different_prefix"),
        ([*TURNS, *YES], [U, said("assistant", "Why?"), said("user", "That"), *NO], "different_prefix"),
        ([U, *YES], [U], "different_prefix"),
        ([U, *YES], [U, *YES], "identical_responses"),
        ([U, *YES], [U, said("assistant", " ")], "empty_response"),
        (YES, NO, "no_prompt"),
        ("yes", "no", "no_prompt"),
        ("same", "same", "identical_responses"),
        (f"{HH} yes", "\n\nHuman: Other\n\nAssistant: no", "different_prefix"),
    ],
)
def test_what_cannot_be_compared_says_why(chosen: Any, rejected: Any, reason: str) -> None:
    with pytest.raises(IncomparableError) as caught:
        compare(None, chosen, rejected)
    assert caught.value.reason == reason


def test_texts_and_messages_do_not_mix() -> None:
    with pytest.raises(RowError, match="expected two texts or two lists of messages, got str and list"):
        compare("Ask", "yes", NO)


def pairs_of(dataset: str, tmp_path: Path, *rows: Any, split: str = "train", **options: str) -> list[PreferencePair]:
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    query = Query(split, data_files=(path,), options=options)
    return list(Sift().pairs(check_query(dataset, query).read(query)))


def preferred_text(pair: PreferencePair) -> str:
    assert pair.preferred is not None
    return pair.responses[pair.preferred]


def test_sides_do_not_give_the_label_away(tmp_path: Path) -> None:
    pairs = pairs_of("trl", tmp_path, *(data_rows.trl(n) for n in range(200)))
    assert 70 < sum(pair.preferred == 0 for pair in pairs) < 130
    assert [preferred_text(pair) for pair in pairs] == [f"yes {n}" for n in range(200)]


def test_equal_scores_are_a_tie_unless_said_otherwise(tmp_path: Path) -> None:
    rows = [data_rows.ultrafeedback(n) for n in range(3)]
    pairs = pairs_of("ultrafeedback_binarized", tmp_path, *rows)
    assert [pair.preferred is None for pair in pairs] == [True, False, False]
    assert pairs[1].meta == {"prompt_id": "p", "score_chosen": 8.0, "score_rejected": 5.5}
    kept = pairs_of("ultrafeedback_binarized", tmp_path, *rows, equal_scores="keep")
    assert [preferred_text(pair) for pair in kept] == ["yes 0", "yes 1", "yes 2"]


def test_skywork_names_where_a_row_comes_from(tmp_path: Path) -> None:
    (pair,) = pairs_of("skywork_reward", tmp_path, data_rows.skywork(1))
    assert pair.meta == {"subset": "magpie_ultra"} and preferred_text(pair) == "yes 1"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [U, *YES], "rejected_response": "no"},
        {"messages": [U, *YES], "rejected_response": NO},
        {"messages": [U, *YES], "rejected_messages": [U, *NO]},
    ],
)
def test_ms_swifts_rows_are_read_in_each_of_their_forms(tmp_path: Path, row: dict[str, Any]) -> None:
    (pair,) = pairs_of("swift_rm", tmp_path, row)
    assert pair.context == "Human: Ask" and preferred_text(pair) == "yes" and set(pair.responses) == {"yes", "no"}


@pytest.mark.parametrize(
    ("dataset", "row", "problem"),
    [
        ("trl", {"prompt": "a", "chosen": "b"}, "no column 'rejected'"),
        ("trl", {"prompt": "a", "chosen": 1, "rejected": 2}, "expected two texts or two lists of messages"),
        ("trl", {"prompt": 4, "chosen": YES, "rejected": NO}, "expected text or a list of messages, got 4"),
        ("trl", {"prompt": [U], "chosen": [{"role": "assistant"}], "rejected": NO}, "message 1: no content"),
        ("swift_rm", {"messages": "x", "rejected_response": "no"}, "'messages': expected a list of messages"),
        ("swift_rm", {"messages": [U], "rejected_response": 3}, "'rejected_response': expected text or messages"),
    ],
)
def test_a_malformed_row_names_its_line(tmp_path: Path, dataset: str, row: dict[str, Any], problem: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(data_rows.MAKERS[dataset](0)) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ConfigError, match=rf"x.jsonl:2: .*{problem}"):
        list(iter_pairs(dataset, "train", data_files=[path]))
