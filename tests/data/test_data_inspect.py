"""What `btrm data inspect` tells of a file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import data_rows
import pytest

from btrm.cli import main
from btrm.data.asked_files import AskedFiles
from btrm.data.inspection import inspect, page
from btrm.data.tally import Limits, wilson

HH = "hh-rlhf/harmless-base.half.jsonl.gz"


def facts_of(path: Path, dataset: str = "auto", limits: Limits | None = None, **options: str) -> dict[str, Any]:
    asked = AskedFiles.build((path,), dataset, None, {}, options, "skip")
    return inspect(asked, limits or Limits())


def trl(path: Path, *rows: tuple[str, str, str]) -> Path:
    named = (dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in named))
    return path


def test_the_facts_of_hh_are_what_another_count_of_the_file_says(shared_data: Path) -> None:
    from btrm.data.sources import iter_pairs

    facts = facts_of(shared_data / HH)
    pairs = list(iter_pairs("anthropic_hh", "test", data_files=[shared_data / HH]))
    assert (facts["rows"], facts["labelled_pairs"], facts["dataset"], facts["detected"]) == (
        1135, 1132, "anthropic_hh", True,
    )  # fmt: skip
    sides = Counter(pair.preferred for pair in pairs)
    assert facts["labels"] == {"first": sides[0], "second": sides[1], "tie": 0}
    assert {reason: found["rows"] for reason, found in facts["dropped"].items()} == {
        "different_prefix": 2,
        "empty_response": 1,
    }
    assert facts["dropped"]["empty_response"]["first"][0].startswith(f"{shared_data / HH}:45: chosen is empty")
    lengths = sorted(len(text) for pair in pairs for text in pair.responses)
    found = facts["characters"]["response"]
    assert (found["min"], found["max"]) == (lengths[0], lengths[-1])
    assert found["mean"] == pytest.approx(sum(lengths) / len(lengths), abs=0.06)
    assert found["p50"] == pytest.approx((lengths[1131] + lengths[1132]) / 2)
    wins = facts["longer_wins"]
    assert wins["share"] == pytest.approx(0.441, abs=0.001) and wins["low"] < 0.445 - 0.02 < wins["high"]


def test_annotators_ties_and_contradictions_are_counted(shared_data: Path) -> None:
    facts = facts_of(shared_data / "pandalm/testset-v1.first-500.json")
    assert facts["labels"] == {"first": 599, "second": 636, "tie": 265} and facts["rows"] == 500
    assert facts["annotators"] == {f"annotator{k}": 500 for k in (1, 2, 3)}
    raw = json.loads((shared_data / "pandalm/testset-v1.first-500.json").read_text())
    said: dict[tuple[str, ...], set[str]] = {}
    for row in raw:
        first, second = (str(row[name]).strip() for name in ("response1", "response2"))
        key = (row["instruction"].strip(), row["input"].strip(), *sorted((first, second)))
        better = {0: "tie", 1: first, 2: second}
        said.setdefault(key, set()).update(better[row[f"annotator{k}"]] for k in (1, 2, 3))
    repeated = facts["duplicates"]
    assert repeated["distinct_pairs"] == repeated["pairs_with_several_labels"] == len(said)
    assert repeated["differing_pairs"] == sum(len(labels) > 1 for labels in said.values())
    assert repeated["contradicted_pairs"] == sum(len(labels - {"tie"}) > 1 for labels in said.values())
    assert repeated["contexts"] == len({key[:2] for key in said})


def test_pairs_shown_the_other_way_round_are_the_same_pairs(tmp_path: Path) -> None:
    rows = [("p", "a", "b"), ("p", "b", "a"), ("p", "a", "b"), ("p", "a", "c"), ("q", "a", "b")]
    repeated = facts_of(trl(tmp_path / "x.jsonl", *rows))["duplicates"]
    assert repeated == {
        "distinct_pairs": 3,
        "contexts": 2,
        "pairs_with_several_labels": 1,
        "contradicted_pairs": 1,
        "differing_pairs": 1,
        "contexts_with_several_pairs": 1,
    }


def test_long_equal_and_empty_responses_are_counted(tmp_path: Path) -> None:
    rows = [{**data_rows.llmbar(n), "output_1": text} for n, text in enumerate(("", "not done 1", "x" * 51))]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = facts_of(path, limits=Limits(characters=50))
    assert found["responses"] == {"empty": 1, "identical": 1, "over_long": 1}


def test_malformed_rows_are_told_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trl(tmp_path / "x.jsonl", ("p", "a", "b"), ("p", "c", "d"))
    path.write_text(path.read_text() + "not json\n\n" + '{"chosen": 3, "rejected": "x"}\n')
    found = facts_of(path)
    assert found["rows"] == 4 and found["labelled_pairs"] == 2
    assert [place.split(": ")[0] for place in found["dropped"]["malformed"]["first"]] == [f"{path}:3", f"{path}:5"]
    assert main(["data", "inspect", str(path), "--on-error", "raise"]) == 2
    assert f"{path}:3: not JSON" in capsys.readouterr().err


def test_sff_is_read_in_all_its_splits_and_once(tmp_path: Path) -> None:
    splits = ("train", "valid1", "valid2", "valid3")
    rows = [{**data_rows.sff(n), "split": split} for n, split in enumerate(splits)]
    article = {**data_rows.sff(9), "split": "valid2", "info": {"id": "c", "post": None, "article": "News"}}
    broken = {**data_rows.sff(10), "choice": 3}
    path = tmp_path / "x.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in (*rows, article, broken)) + "not json\n")
    found = facts_of(path)
    assert found["splits"] == ["train", "validation", "test"] and found["labelled_pairs"] == 3
    assert {reason: drop["rows"] for reason, drop in found["dropped"].items()} == {
        "unknown_split": 1,
        "domain_cnndm": 1,
        "malformed": 2,
    }
    assert found["annotators"] == {"w1": 3}
    assert facts_of(path, domain="all")["subsets"] == {"tldr": 3, "cnndm": 1}


def test_json_has_the_same_keys_whatever_the_file_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trl(tmp_path / "x.jsonl", ("p", "a", "b"))
    assert main(["data", "inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        "files", "dataset", "detected", "splits", "rows", "labelled_pairs", "labels", "annotators", "subsets",
        "duplicates", "responses", "longer_wins", "characters", "tokens", "dropped", "limits", "examples",
    ]  # fmt: skip
    assert found["tokens"] is None and found["dropped"] == {} and found["examples"][0]["preferred"] in (0, 1)
    path.write_text('{"prompt": "p", "chosen": "a", "rejected": "a"}\n')
    assert main(["data", "inspect", str(path), "--json"]) == 0
    empty = json.loads(capsys.readouterr().out)
    assert list(empty) == list(found) and empty["labelled_pairs"] == 0
    assert empty["characters"] == {"context": None, "response": None} and empty["longer_wins"]["share"] is None


def test_the_page_says_it_all_in_the_width_that_there_is(shared_data: Path) -> None:
    facts = facts_of(shared_data / "pandalm/testset-v1.first-500.json")
    text = page(facts, 80)
    for part in ("pandalm (by its columns)", "500 rows", "a tie", "17.7%", "both ways", "longer wins", "is preferred"):
        assert part in text
    assert len(facts["examples"]) == 3
    assert all(len(line) <= 80 for line in text.splitlines() if str(shared_data) not in line)


def test_a_folder_is_all_its_files(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert facts_of(shared_data / "llmbar")["rows"] == 100
    assert main(["data", "inspect", "nothere.jsonl"]) == 2
    assert "nothere.jsonl: no such file" in capsys.readouterr().err


def test_a_page_of_nothing_is_a_page(tmp_path: Path) -> None:
    text = page(facts_of(trl(tmp_path / "x.jsonl", ("p", "a", "a"))), 80)
    assert "0 labelled pairs" in text and "identical_responses" in text


def test_examples_are_the_same_on_every_call_and_from_anywhere(tmp_path: Path) -> None:
    rows = [(f"p{n}", f"a{n}", f"b{n}") for n in range(300)]
    first, second = (facts_of(trl(tmp_path / "x.jsonl", *rows))["examples"] for _ in range(2))
    assert first == second and max(int(one["context"].removeprefix("Human: p")) for one in first) > 3


def test_columns_are_named_for_what_is_nothing_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"q": "ask", "good": "yes", "bad": "no"}\n')
    words = ["data", "inspect", str(path), "--json"]
    assert main(words) == 2 and "no known data set has these columns: q, good, bad" in capsys.readouterr().err
    named = ["--dataset", "mapped", "--columns", "context=q", "chosen=good", "rejected=bad"]
    assert main([*words, *named]) == 0 and json.loads(capsys.readouterr().out)["labelled_pairs"] == 1
    assert main([*words, "--dataset", "maped"]) == 2 and "did you mean mapped" in capsys.readouterr().err
    assert main([*words, "--columns", "context"]) == 2 and "--columns context: expected" in capsys.readouterr().err


def test_wilsons_interval_is_the_published_one() -> None:
    """Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662, 15 of 148 is 0.0624 to 0.1605, 0 of 20 is 0 to 0.1611."""
    for count, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson(count / n, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(
    ("name", "split"),
    [("train-00000-of-00001.jsonl", "train"), ("validation.jsonl", "validation"), ("x.jsonl", "test")],
)
def test_a_files_name_says_the_split_of_sets_that_have_no_splits_of_their_own(
    tmp_path: Path, name: str, split: str
) -> None:
    assert facts_of(trl(tmp_path / name, ("p", "a", "b")))["splits"] == [split]


def test_a_text_gives_the_terminal_no_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trl(tmp_path / "x.jsonl", ("p \x1b[2J", "\x07 a \u202e", "b"))
    assert main(["data", "inspect", str(path)]) == 0
    page_text = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(page_text) and "\N{REPLACEMENT CHARACTER}[2J" in page_text
