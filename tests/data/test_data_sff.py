from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from btrm.config import ConfigError
from btrm.data.items import Dropped, Query
from btrm.data.sources import Sift, check_query
from btrm.records import PreferencePair


def comparison(number: int, split: str = "train", **changes: Any) -> dict[str, Any]:
    """A comparison in the original format."""
    row: dict[str, Any] = {
        "info": {
            "id": f"t3_{number}",
            "post": f" Post {number}. ",
            "title": "A title",
            "subreddit": "tifu",
            "article": None,
            "site": None,
        },
        "summaries": [
            {"text": f" first {number}", "policy": "sup1", "note": "ok"},
            {"text": f" second {number}", "policy": "ref", "note": None},
        ],
        "choice": number % 2,
        "worker": f"w{number % 3}",
        "batch": "batch3",
        "split": split,
        "extra": {"confidence": 7},
    }
    return {**row, **changes}


def cnndm(number: int, split: str = "valid2") -> dict[str, Any]:
    info = {"id": f"c{number}", "post": None, "title": "News", "subreddit": None, "article": f"Article {number}"}
    return comparison(number, split, info={**info, "site": "cnn"}, batch="cnndm0")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two original files, JSON lines under the name .json."""
    (tmp_path / "batch3.json").write_text("".join(json.dumps(comparison(n)) + "\n" for n in range(4)))
    rows = [
        comparison(10, "valid1"),
        cnndm(11, "valid1"),
        comparison(12, "valid2"),
        cnndm(13),
        comparison(14, "valid2"),
    ]
    (tmp_path / "batch7.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def sifted(
    path: Path, split: str, domain: str | None = None
) -> tuple[list[PreferencePair], list[Dropped], dict[str, int]]:
    drops: list[Dropped] = []
    query = Query(split, data_files=(path,), options={"domain": domain} if domain else {})
    sift = Sift(on_drop=drops.append)
    source = check_query("summarize_from_feedback", query)
    return list(sift.pairs(source.read(query))), drops, dict(sift.counts)


def test_a_comparison_keeps_who_said_it_and_how_surely(files: Path) -> None:
    pairs, drops, _ = sifted(files, "train")
    pair = pairs[1]
    assert pair.context == "SUBREDDIT: r/tifu\nTITLE: A title\nPOST: Post 1."
    assert (pair.responses, pair.preferred) == (("first 1", "second 1"), 1)
    assert pair.label_id == f"{pair.pair_id}-w1.0"
    assert pair.meta["worker"] == "w1" and pair.meta["confidence"] == 7 and pair.meta["policy_1"] == "ref"
    assert len(pairs) == 4 and not drops


def test_valid1_is_validation_and_valid2_is_test(files: Path) -> None:
    assert [p.meta["post_id"] for p in sifted(files, "validation")[0]] == ["t3_10"]
    assert [p.meta["post_id"] for p in sifted(files, "test")[0]] == ["t3_12", "t3_14"]


def test_cnndm_rows_are_kept_apart(files: Path) -> None:
    pairs, drops, counts = sifted(files, "test")
    assert counts["dropped_domain_cnndm"] == 1 and drops[0].where == f"{files}/batch7.json:4" and len(pairs) == 2
    pairs, _, counts = sifted(files, "test", "cnndm")
    assert [p.context for p in pairs] == ["Article 13"] and counts["dropped_domain_tldr"] == 2
    assert [p.meta["domain"] for p in sifted(files, "test", "all")[0]] == ["tldr", "cnndm", "tldr"]


def test_one_worker_asked_twice_and_two_workers_all_have_their_own_label(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [comparison(1), comparison(1), comparison(1, worker="w9"), comparison(1, worker=None)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = sifted(path, "train")[0]
    assert len({p.pair_id for p in pairs}) == 1
    assert [p.label_id.partition("-")[2] for p in pairs] == ["w1.0", "w1.1", "w9.0", "0"]


def test_a_choice_that_came_as_a_float_is_a_side(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(comparison(0, choice=1.0)) + "\n")
    (pair,) = sifted(path, "train")[0]
    assert pair.preferred == 1 and isinstance(pair.preferred, int)


def bad_rows() -> Iterator[tuple[dict[str, Any], str]]:
    yield comparison(0, info=None), "'info': expected an object"
    yield comparison(0, info={"post": None, "article": None}), "neither a post nor an article"
    yield comparison(0, summaries=[{"text": "one"}]), "'summaries': expected two"
    yield comparison(0, summaries=[{"text": "one"}, {"text": None}]), "each needs a 'text'"
    yield comparison(0, choice=2), "'choice': expected 0 or 1, got 2"
    yield comparison(0, choice=True), "'choice': expected 0 or 1, got True"
    yield comparison(0, extra="sure"), "'extra': expected an object, got 'sure'"


@pytest.mark.parametrize(("row", "problem"), bad_rows())
def test_a_malformed_comparison_names_its_line(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(comparison(1)) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ConfigError, match=rf"{path}:2: .*{problem}"):
        sifted(path, "train")


def test_traps_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    same = [{"text": "same"}, {"text": " same "}]
    empty = [{"text": "one"}, {"text": " "}]
    rows = [comparison(0, "valid3"), comparison(1, summaries=same), comparison(2, summaries=empty), comparison(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, _, counts = sifted(path, "train")
    assert counts == {
        "dropped_unknown_split": 1,
        "dropped_identical_responses": 1,
        "dropped_empty_text": 1,
        "pairs": 1,
        "ties": 0,
    }


def test_an_unknown_domain_names_the_nearest(files: Path) -> None:
    with pytest.raises(ConfigError, match="domain='tldrr': no such domain; did you mean tldr"):
        sifted(files, "train", "tldrr")
