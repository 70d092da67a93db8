from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btrm.scores import OUTCOMES, PARSERS, SCALES, Outcome, parse_score, parse_texts, score_tag

LAST, FIRST = PARSERS["score100_last"], PARSERS["score100_first"]

# Whole and broken tags, numerals of all kinds, and characters that confuse byte-wise readers.
PIECES = ["<s>", "</s>", "<s>7</s>", "<s>73</s>", "<s>100</s>", "<s>4.5</s>", "<s>4.55</s>", "<s>-1</s>", "<s></s>"]
PIECES += ["<s>85/100</s>", "<s>٧</s>", "<s>7\0</s>", "<s>\0</s>", "<s>99999999999</s>", "<s> 7 </s>", "<s>\n50\n</s>"]
PIECES += [
    "<",
    ">",
    "s>",
    "/s>",
    "0",
    "7",
    "42",
    ".",
    "-",
    "\0",
    "\n",
    " ",
    "\u00a0",
    "é",
    "漢",
    "😀",
    "\ud800",
    "text",
]
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=8).map("".join)


def check_batch(batch: list[str], parser_name: str) -> None:
    parser = PARSERS[parser_name]
    read = parse_texts(batch, parser)
    for text, value, code in zip(batch, read.score_N.tolist(), read.outcome_N.tolist(), strict=True):
        alone = parse_score(text, parser)
        assert OUTCOMES[code] == alone.outcome, text
        assert value == alone.value or (math.isnan(value) and alone.value is None), text


batches = given(st.lists(texts, max_size=12), st.sampled_from(sorted(PARSERS)))
test_parse_texts_equals_parse_score_on_every_text = settings(deadline=None, max_examples=300)(batches(check_batch))
test_parse_texts_equals_parse_score_at_length = pytest.mark.soak(
    settings(deadline=None, max_examples=5_000)(batches(check_batch))
)


def test_parse_texts_across_blocks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("btrm.scores._BLOCK", 3)
    scores = parse_texts([f"so <s>{n}</s>" if n % 4 else "none" for n in range(10)], LAST).score_N
    np.testing.assert_array_equal(scores, [n if n % 4 else np.nan for n in range(10)])


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("<s>1</s> then <s>99</s>", 1.0, 99.0),
        ("<s>1</s> then <s>", 1.0, 1.0),
        ("<s>x <s>5</s>", 5.0, 5.0),
        ("<s>5</s></s>", 5.0, 5.0),
        ("é<s>5</s>é", 5.0, 5.0),
    ],
)
def test_position(text: str, first: float, last: float):
    assert parse_score(text, FIRST).value == first
    assert parse_score(text, LAST).value == last
    assert parse_texts([text], FIRST).score_N.tolist() == [first]
    assert parse_texts([text], LAST).score_N.tolist() == [last]


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("", Outcome.UNPARSED),
        ("<s>high</s>", Outcome.UNPARSED),
        ("<s>85/100</s>", Outcome.UNPARSED),
        ("<s>٧٣</s>", Outcome.UNPARSED),
        ("<s>140</s>", Outcome.OUT_OF_RANGE),
        ("<s>-3</s>", Outcome.OUT_OF_RANGE),
        ("<s>85.5</s>", Outcome.OUT_OF_RANGE),
        ("<s>85.0</s>", Outcome.SCORED),
        ("<s>5</s> and <s>high</s>", Outcome.UNPARSED),
    ],
)
def test_outcome(text: str, outcome: Outcome):
    assert parse_score(text, LAST).outcome == outcome


def test_finish_reasons():
    assert parse_score("so far", LAST, "length").outcome == Outcome.TRUNCATED
    assert parse_score("<s>5</s>", LAST, "length").outcome == Outcome.SCORED
    assert parse_score("<s>5</s>", LAST, "refusal").outcome == Outcome.REFUSED
    assert parse_score("<s>5</s>", LAST, "content_filter").outcome == Outcome.FILTERED
    assert parse_score("<s>5</s>", LAST, "error").outcome == Outcome.ERROR


@pytest.mark.parametrize("parser", PARSERS.values(), ids=lambda p: p.name)
def test_every_numeral_of_a_scale_is_read_back(parser):
    scale = SCALES[parser.scale.name]
    values = np.round(np.arange(scale.low, scale.high + 0.05, 10.0**-scale.decimals), scale.decimals)
    for text in ("{}", "because {}", "{} because"):
        read = parse_texts([text.format(score_tag(v, scale)) for v in values], parser)
        np.testing.assert_array_equal(read.score_N, values)


def test_values_are_python_floats():
    assert type(parse_score("<s>5</s>", LAST).value) is float
