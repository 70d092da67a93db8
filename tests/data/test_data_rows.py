from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btrm.config import ConfigError
from btrm.data.rows import RowEncoder, read_rows, row_meta, validate_rows
from btrm.prompts import PROMPTS, PromptSpec
from btrm.records import PointwiseRow, PreferencePair
from btrm.scores import SCALES

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SPECS = [
    PROMPTS["hh_score100_v1"],
    PROMPTS["toy_score100"],
    PromptSpec("braces", "", SCALES["score5"], "score_only", 'a"{context}\\{x}{context}{response}\n{}', 'sys "é"'),
    PromptSpec("no_context", "", SCALES["score5"], "score_only", "{response}"),
]


def pair(n: int = 0, preferred: int | None = 0, **meta: Any) -> PreferencePair:
    return PreferencePair.make(f"c{n}", ("x", "y"), preferred, source="s", split="train", meta=meta)


@given(TEXT, TEXT, TEXT, st.sampled_from([0, 1]), st.sampled_from(SPECS), st.booleans())
def test_the_encoder_writes_what_the_record_says(
    context: str, first: str, second: str, preferred: int, spec: PromptSpec, add_meta: bool
) -> None:
    made = PreferencePair.make(
        context, (first, second), preferred, source="s", split="t", meta={"é": [1, None, context]}
    )
    lines = RowEncoder(spec, add_meta).lines(made).decode().split("\n")
    expected = [
        PointwiseRow(
            spec.messages(context, response), made.pair_id, made.label_id, side, preferred, row_meta(made)
        ).to_json()
        for side, response in enumerate(made.responses)
    ]
    if not add_meta:
        expected = [{k: v for k, v in row.items() if k not in {"source", "split", "é"}} for row in expected]
    assert [json.loads(line) for line in lines[:-1]] == expected and lines[-1] == ""
    assert [list(json.loads(line)) for line in lines[:-1]] == [list(row) for row in expected]


def test_metadata_never_stands_for_a_rows_own_key() -> None:
    made = pair(side=7, pair_id="mine", topic="t")
    rows = [json.loads(line) for line in RowEncoder(PROMPTS["toy_score100"], True).lines(made).splitlines()]
    assert [row["side"] for row in rows] == [0, 1]
    assert [row["pair_id"] for row in rows] == [made.pair_id] * 2 and rows[0]["topic"] == "t"


def test_a_tie_has_no_rows() -> None:
    assert RowEncoder(PROMPTS["toy_score100"]).lines(pair(preferred=None)) == b""


def row(label: str = "a", side: int = 0, preferred: int = 1, **changes: Any) -> dict[str, Any]:
    base = {"messages": [{"role": "user", "content": "x"}], "pair_id": "p" + label, "label_id": label}
    return {**base, "side": side, "preferred_side": preferred, **changes}


def rows_file(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_good_rows_are_counted_and_read(tmp_path: Path) -> None:
    path = rows_file(tmp_path, row("a", 0), row("a", 1, topic="t"), row("b", 0, 0), row("b", 1, 0))
    assert validate_rows(path) == 2
    found = list(read_rows(path))
    assert [(r.label_id, r.side, r.preferred_side) for r in found] == [
        ("a", 0, 1),
        ("a", 1, 1),
        ("b", 0, 0),
        ("b", 1, 0),
    ]
    assert found[1].meta == {"topic": "t"}


A0, A1, B0, B1 = row("a", 0), row("a", 1), row("b", 0), row("b", 1)


@pytest.mark.parametrize(
    ("rows", "problems"),
    [
        ([A0, A1, B0], ["rows.jsonl:3: lone side: label_id b side 0; its side 1 must follow"]),
        ([A0, B0, B1], ["rows.jsonl:1: lone side: label_id a side 0"]),
        ([A1, B0, B1], ["rows.jsonl:1: lone side: label_id a side 1; its side 0 must stand before it"]),
        ([A0, B0, A1, B1], [f"rows.jsonl:{n}: " for n in (1, 2)]),
        ([A0, A1, B0, B1, A0, A1], ["rows.jsonl:5: row key (label_id a, side 0) again", "rows.jsonl:6: row key"]),
        ([A0, A0, A1], ["rows.jsonl:2: row key (label_id a, side 0) again"]),
        ([A0, row("a", 1, 0)], ["rows.jsonl:2: label_id a: sides disagree on preferred_side: 1 at ", ":1 and 0 here"]),
        ([A0, row("a", 1, pair_id="other")], ["sides disagree on pair_id"]),
        ([{"label_id": "a"}], ["rows.jsonl:1: missing messages, pair_id, side, preferred_side"]),
        ([row(side=2)], ["rows.jsonl:1: side: expected 0 or 1, got 2"]),
        ([row(preferred=None)], ["preferred_side: expected 0 or 1, got None"]),
        ([row(side=True)], ["side: expected 0 or 1, got True"]),
        ([row(messages="hi")], ["messages: expected a list of messages, got 'hi'"]),
        ([row(label_id=3)], ["label_id: expected text, got 3"]),
        ([], ["holds no rows"]),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path: Path, rows: list[dict[str, Any]], problems: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        validate_rows(rows_file(tmp_path, *rows))
    for problem in problems:
        assert problem in str(error.value)


def test_a_line_that_is_no_json_is_named_and_the_list_of_problems_ends(tmp_path: Path) -> None:
    path = rows_file(tmp_path, A0, A1)
    path.write_text(path.read_text() + "{\n" + '{"a": 1}\n' * 500)
    with pytest.raises(ConfigError) as error:
        validate_rows(path)
    lines = str(error.value).splitlines()
    assert "rows.jsonl:3: not JSON" in lines[0] and len(lines) == 20


@pytest.mark.slow
def test_320k_rows_are_checked_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    encoder = RowEncoder(PROMPTS["hh_score100_v1"])
    with path.open("wb") as file:
        for n in range(160_000):
            file.write(encoder.lines(PreferencePair.make(f"{n} " + "word " * 100, ("x", "y"), 0, source="", split="")))
    before = time.process_time()
    assert validate_rows(path) == 160_000
    took, before = time.process_time() - before, time.process_time()
    with path.open("rb") as file:
        assert sum(bool(orjson.loads(line)) for line in file) == 320_000
    assert took < max(8.0, 12 * (time.process_time() - before))
