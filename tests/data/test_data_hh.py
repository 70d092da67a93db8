from __future__ import annotations

import json
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.data.anthropic_hh import split_conversations
from btrm.data.items import Dropped, Query
from btrm.data.sources import Sift, check_query, iter_pairs
from btrm.records import PreferencePair

H, A = "\n\nHuman:", "\n\nAssistant:"


def sifted(path: Path, on_error: str = "raise") -> tuple[list[PreferencePair], list[Dropped], dict[str, int]]:
    drops: list[Dropped] = []
    query = Query("test", data_files=(path,))
    sift = Sift(on_error, on_drop=drops.append)
    pairs = list(sift.pairs(check_query("anthropic_hh", query).read(query)))
    return pairs, drops, dict(sift.counts)


def hh_file(tmp_path: Path, *rows: tuple[str, str]) -> Path:
    path = tmp_path / "hh.jsonl"
    path.write_text("".join(json.dumps({"chosen": c, "rejected": r}) + "\n" for c, r in rows))
    return path


def test_a_row_becomes_context_and_two_replies() -> None:
    start = f"{H} hi{A} hello{H} more?"
    assert split_conversations(f"{start}{A} yes", f"{start}{A} no\n\nreally ") == (
        "Human: hi\n\nAssistant: hello\n\nHuman: more?",
        "yes",
        "no\n\nreally",
        False,
    )


def test_a_reply_equal_to_an_earlier_turn_is_split_by_position(tmp_path: Path) -> None:
    start = f"{H} hi{A} yes{H} again?"
    pairs, _, counts = sifted(hh_file(tmp_path, (f"{start}{A} yes", f"{start}{A} no")))
    assert pairs[0].context == "Human: hi\n\nAssistant: yes\n\nHuman: again?"
    assert sorted(pairs[0].responses) == ["no", "yes"] and counts["repaired_reply_equals_earlier_turn"] == 1


def test_two_assistant_turns_in_a_row_are_one_reply(tmp_path: Path) -> None:
    start = f"{H} hi"
    pairs, _, counts = sifted(hh_file(tmp_path, (f"{start}{A} one:{A} two", f"{start}{A} other")))
    assert pairs[0].context == "Human: hi" and f"one:{A} two" in pairs[0].responses
    assert counts["repaired_assistant_turns_joined"] == 1


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (f"{H} hi{A} a", f"{H} ho{A} b", "different_prefix"),
        (f"{H} hi{A} a{H} and?{A} c", f"{H} hi{A} b", "different_prefix"),
        (f"{H} hi{A} a  Human: and?{A} c", f"{H} hi{A} b", "different_prefix"),
        (f"{H} hi{A} ", f"{H} hi{A} b", "empty_response"),
        (f"{H} hi{A} b", f"{H} hi{A}", "empty_response"),
        (f"{H} hi{A} b", f"{H} hi{A} b ", "identical_responses"),
    ],
)
def test_what_cannot_be_compared_is_dropped_and_counted(
    tmp_path: Path, chosen: str, rejected: str, reason: str
) -> None:
    path = hh_file(tmp_path, (chosen, rejected), (f"{H} hi{A} a", f"{H} hi{A} b"))
    pairs, drops, counts = sifted(path)
    assert len(pairs) == 1 and counts == {"pairs": 1, "ties": 0, f"dropped_{reason}": 1}
    assert drops[0].where == f"{path}:1" and drops[0].row == {"chosen": chosen, "rejected": rejected}


def test_a_malformed_row_is_an_error_with_its_place_or_a_count(tmp_path: Path) -> None:
    path = hh_file(tmp_path, (f"{H} hi{A} a", f"{H} hi{A} b"), ("no turns", f"{H} hi{A} b"))
    path.write_text(path.read_text() + '{"chosen": "x"}\n{"chosen": 3, "rejected": "x"}\nnot json\n')
    with pytest.raises(ConfigError, match=rf"{path}:2: 'chosen' holds no assistant turn"):
        sifted(path)
    pairs, drops, counts = sifted(path, "skip")
    assert len(pairs) == 1 and counts["dropped_malformed"] == 4
    assert [drop.where[-1] for drop in drops] == ["2", "3", "4", "5"]


def test_several_labels_of_one_pair_share_its_id_and_have_their_own(tmp_path: Path) -> None:
    row, flipped = (f"{H} hi{A} a", f"{H} hi{A} b"), (f"{H} hi{A} b", f"{H} hi{A} a")
    first, again, other = sifted(hh_file(tmp_path, row, row, flipped))[0]
    assert first.pair_id == again.pair_id == other.pair_id
    assert [p.label_id for p in (first, again, other)] == [f"{first.pair_id}-{n}" for n in range(3)]
    assert (first.preferred, again.preferred, other.preferred) == (
        first.preferred,
        first.preferred,
        1 - first.preferred,
    )


def test_the_traps_of_the_real_file_are_what_they_are(shared_data: Path) -> None:
    path = shared_data / "hh-rlhf/harmless-base.half.jsonl.gz"
    pairs, drops, counts = sifted(path)
    assert counts == {
        "pairs": 1132,
        "ties": 0,
        "dropped_different_prefix": 2,
        "dropped_empty_response": 1,
        "repaired_assistant_turns_joined": 1,
        "repaired_reply_equals_earlier_turn": 9,
    }
    assert len(pairs) + len(drops) == 1135
    assert len({pair.label_id for pair in pairs}) == 1132
    share = sum(pair.preferred == 0 for pair in pairs) / len(pairs)
    assert 0.45 < share < 0.55  # the label says nothing about the side
    for pair in pairs:
        assert pair.context.startswith("Human:") and all(text == text.strip() != "" for text in pair.responses)


def test_a_limit_takes_a_stable_prefix(shared_data: Path) -> None:
    files = (shared_data / "hh-rlhf/harmless-base.half.jsonl.gz",)
    hundred = list(iter_pairs("anthropic_hh", "test", limit=100, data_files=files))
    assert len(hundred) == 100
    assert hundred[:60] == list(iter_pairs("anthropic_hh", "test", limit=60, data_files=files))


def test_a_long_wrong_value_is_shown_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "hh.jsonl"
    path.write_text(json.dumps({"chosen": [{"role": "user", "content": "x" * 10_000}], "rejected": "b"}) + "\n")
    with pytest.raises(ConfigError, match=r"hh\.jsonl:1: 'chosen': expected text, got \[\{'role'.*keys are") as caught:
        sifted(path)
    assert len(str(caught.value)) < 500
