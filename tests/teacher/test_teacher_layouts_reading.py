from __future__ import annotations

import json
import re
import time

import pytest
from hostile_responses import FORMS, LAYOUTS, answered, calls_of, honest, meant, pair_of, settings
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from btrm.scores import ENDS, SCALES, Score
from btrm.teacher.base import Call
from btrm.teacher.reading import verdicts

HUNDRED, FIVE = SCALES["score100"], SCALES["score5"]


def a_call(layout: str, form: str) -> Call:
    return calls_of(settings(layout, form), {n: pair_of(n, f"one {n}", f"two {n}") for n in range(4)})[0]


def outcomes(call: Call, text: str, finish: str = "stop") -> list[str]:
    """Each item's value as text, or its outcome."""
    found = [verdict.score for verdict in verdicts(answered(call, text, finish), HUNDRED)]
    return [short(score) for score in found]


def short(score: Score) -> str:
    return str(score.outcome) if score.value is None else f"{score.value:g}"


NUMERALS = [
    ("73", "73"),
    (" 73 ", "73"),
    ("73.0", "73"),
    ("0", "0"),
    ("100", "100"),
    ("101", "out_of_range"),
    ("-1", "out_of_range"),
    ("85.5", "out_of_range"),
    ("", "unparsed"),
    ("1e2", "unparsed"),
    ("73/100", "unparsed"),
    ("high", "unparsed"),
    ("７３", "unparsed"),
    ("9" * 5000, "unparsed"),
]


@pytest.mark.parametrize(("numeral", "read"), NUMERALS)
def test_a_tag_is_read_by_the_rules_of_scores(numeral: str, read: str) -> None:
    call = a_call("pointwise", "tags")
    assert outcomes(call, f'Fine.\n<score id="{call.items[0].mark}">{numeral}</score>') == [read]


@pytest.mark.parametrize(("numeral", "read"), NUMERALS)
def test_so_is_a_string_in_json(numeral: str, read: str) -> None:
    assert outcomes(a_call("pointwise", "schema"), json.dumps({"analysis": "a", "score": numeral})) == [read]


@pytest.mark.parametrize(
    ("number", "read"),
    [
        *[(text, read) for text, read in NUMERALS if text.strip() in {"73", "73.0", "0", "100", "101", "-1", "85.5"}],
        ("1e2", "unparsed"),
        ("true", "unparsed"),
        ("null", "unparsed"),
        ("NaN", "unparsed"),
        ("-Infinity", "unparsed"),
        ("[73]", "unparsed"),
        ('{"score": 73}', "unparsed"),
        ("9" * 5000, "unparsed"),
        ("0073", "unparsed"),  # not JSON
    ],
)
def test_so_is_a_number_in_json(number: str, read: str) -> None:
    assert outcomes(a_call("pointwise", "schema"), f'{{"analysis": "a", "score": {number}}}') == [read]


def test_one_decimal_is_kept_on_the_scale_of_five() -> None:
    call = a_call("pointwise", "schema")
    texts = ['{"analysis": "a", "score": 4.5}', '{"analysis": "a", "score": 4.55}', '{"analysis": "a", "score": 4.50}']
    assert [short(verdicts(answered(call, text), FIVE)[0].score) for text in texts] == ["4.5", "out_of_range", "4.5"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("finish", ENDS)
def test_how_an_answer_ended_goes_before_what_it_says(layout: str, form: str, finish: str) -> None:
    call = a_call(layout, form)
    assert outcomes(call, honest(call), finish) == [str(ENDS[finish])] * len(call.items)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_an_answer_that_its_length_ended_keeps_what_is_whole(layout: str, form: str) -> None:
    call = a_call(layout, form)
    whole = honest(call).rstrip()
    assert outcomes(call, whole, "length") == meant(call)
    for cut in range(len(whole)):
        found = outcomes(call, whole[:cut], "length")
        kept = next((n for n, one in enumerate(found) if one == "truncated"), len(found))
        assert found == meant(call)[:kept] + ["truncated"] * (len(found) - kept)
        assert form == "tags" or kept == 0


# What becomes of an answer about items A and B, which are meant to have 40 and 60; «A 40» is A's score in its form.
TAGS = {
    "both": ("=== A ===\nx\n«A 40»\n=== B ===\ny\n«B 60»", "40 60"),
    "other order": ("=== B ===\n«B 60»\n=== A ===\n«A 40»", "40 60"),
    "prose around": ("Well.\n=== A ===\n«A 40» so\n=== B ===\n«B 60»\nBye", "40 60"),
    "one score missing": ("=== A ===\nx\n=== B ===\n«B 60»", "unparsed 60"),
    "one section missing": ("«A 40»\n=== B ===\n«B 60»", "unparsed 60"),
    "in the other's section": ("=== A ===\n=== B ===\n«A 40»«B 60»", "unparsed 60"),
    "twice the same": ("=== A ===\n«A 40»«A 40»\n=== B ===\n«B 60»", "40 60"),
    "twice another": ("=== A ===\n«A 40»«A 41»\n=== B ===\n«B 60»", "unparsed 60"),
    "one is no number": ("=== A ===\n«A 40»«A good»\n=== B ===\n«B 60»", "unparsed 60"),
    "two sections agree": ("=== A ===\n«A 40»\n=== B ===\n«B 60»\n=== A ===\n«A 40»", "40 60"),
    "two sections differ": ("=== A ===\n«A 40»\n=== B ===\n«B 60»\n=== A ===\n«A 4»", "unparsed 60"),
    "the form alone": ("=== A ===\n(analysis)\n«A ...»\n=== B ===\n«B 60»", "unparsed 60"),
    "the form first": ("=== A ===\n(analysis)\n«A ...»\n=== B ===\n«B 60»\n=== A ===\n«A 40»", "40 60"),
    "a plain tag": ("=== A ===\n<s>40</s><score>40</score>\n=== B ===\n«B 60»", "unparsed 60"),
    "heading within a line": ("x === A ===\n«A 40»\n=== B ===\n«B 60»", "unparsed 60"),
    "out of range": ("=== A ===\n«A 400»\n=== B ===\n«B 60»", "out_of_range 60"),
    "json": ('{"items": [{"id": "A", "analysis": "", "score": 40}]}', "unparsed unparsed"),
    "nothing": ("", "unparsed unparsed"),
}
JSON = {
    "both": ('{"items": [«A 40», «B 60»]}', "40 60"),
    "other order": ('{"items": [{"score": "60", "id": "B", "analysis": "y"}, «A 40»]}', "40 60"),
    "fenced": ('\n```json\n{"items": [«A 40»]}\n```\n', "40 unparsed"),
    "fenced in prose": ('Here:\n```json\n{"items": [«A 40»]}\n```\n', "unparsed unparsed"),
    "prose after a fence": ('```json\n{"items": [«A 40»]}\n```\nso', "unparsed unparsed"),
    "prose after it": ('{"items": [«A 40»]} so', "unparsed unparsed"),
    "one missing": ('{"items": [«B 60»]}', "unparsed 60"),
    "no score": ('{"items": [{"id": "A", "analysis": "x"}, «B 60»]}', "unparsed 60"),
    "no analysis": ('{"items": [{"id": "A", "score": 40}, «B 60»]}', "unparsed 60"),
    "analysis is a list": ('{"items": [{"id": "A", "analysis": ["x"], "score": 40}, «B 60»]}', "unparsed 60"),
    "analysis is a number": ('{"items": [{"id": "A", "analysis": 40, "score": 40}, «B 60»]}', "unparsed 60"),
    "score is a list": ('{"items": [«A [40]», «B 60»]}', "unparsed 60"),
    "another field": ('{"items": [{"id": "A", "analysis": "x", "score": 40, "z": 1}, «B 60»]}', "unparsed 60"),
    "another field outside": ('{"items": [«A 40»], "z": 1}', "unparsed unparsed"),
    "twice the same": ('{"items": [«A 40», «A 40»]}', "40 unparsed"),
    "twice another": ('{"items": [«A 40», «A 4», «B 60»]}', "unparsed 60"),
    "a field twice": ('{"items": [{"id": "A", "analysis": "x", "score": 40, "score": 4}, «B 60»]}', "unparsed 60"),
    "two lists": ('{"items": [«A 40»], "items": [«B 60»]}', "40 60"),
    "two ids": ('{"items": [{"id": "A", "id": "B", "analysis": "x", "score": 40}, «B 60»]}', "unparsed 60"),
    "a stranger after it": ('{"items": [«A 40», «C 1», «B 60»]}', "unparsed 60"),
    "a stranger before all": ('{"items": [«C 1», «B 60»]}', "unparsed 60"),
    "no list": ('{"items": «A 40»}', "unparsed unparsed"),
    "a bare list": ("[«A 40»]", "unparsed unparsed"),
    "ids that are no strings": ('{"items": [1, null, [], {"id": [], "score": 1}, {"id": {}}]}', "unparsed unparsed"),
    "tags": ('=== A ===\n<score id="A">40</score>', "unparsed unparsed"),
    "too deep": ("[" * 200_000, "unparsed unparsed"),
    "nothing": ("", "unparsed unparsed"),
}


def marked(call: Call, text: str, score: str) -> str:
    """Write the scores out and give A and B their marks."""
    text = re.sub("«(.) (.*?)»", score, text)
    for name, item in zip("AB", call.items, strict=False):
        text = re.sub(rf"""(=== |id ?= ?["']?|"id": "){name}\b""", lambda found, mark=item.mark: found[1] + mark, text)
    return text


@pytest.mark.parametrize("case", TAGS)
@pytest.mark.parametrize(
    "score", [r'<score id="\1">\2</score>', r"<score  id = '\1' >\2</score >", r"<score id=\1>\2</score>"]
)
def test_what_is_wrong_with_one_section_leaves_the_others_theirs(case: str, score: str) -> None:
    call = a_call("pairwise", "tags")
    text, expected = TAGS[case]
    assert outcomes(call, marked(call, text, score)) == expected.split()


@pytest.mark.parametrize("heading", ["**=== {} ===**", "### === {} === ", "==={}===\r", "  === {} ==="])
def test_headings_may_be_dressed_up(heading: str) -> None:
    call = a_call("pairwise", "tags")
    text = re.sub("(?m)^=== (.*) ===$", lambda found: heading.format(found[1]), honest(call))
    assert heading.format(call.items[0].mark) in text and outcomes(call, text) == meant(call)


@pytest.mark.parametrize("case", JSON)
def test_what_is_wrong_with_one_element_leaves_the_others_theirs(case: str) -> None:
    call = a_call("batched", "schema")
    text, expected = JSON[case]
    text = marked(call, text, r'{"id": "\1", "analysis": "x", "score": \2}')
    assert outcomes(call, text)[:2] == expected.split()


@pytest.mark.parametrize("form", FORMS)
def test_the_analysis_is_what_was_said_about_that_item(form: str) -> None:
    call = a_call("pairwise", form)
    one, two = (item.mark for item in call.items)
    text = f'=== {one} ===\nIt is\nshort.\n\n<score id="{one}">40</score>\n'
    text += f'=== {two} ===\nLong.\n<score id="{two}">x</score>'
    if form == "schema":
        text = json.dumps(
            {
                "items": [
                    {"id": one, "analysis": " It is\nshort.\n", "score": 40},
                    {"id": two, "analysis": "Long.", "score": "x"},
                ]
            }
        )
    assert [verdict.analysis for verdict in verdicts(answered(call, text), HUNDRED)] == ["It is\nshort.", "Long."]


_JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["items", "id", "analysis", "score", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@effort(max_examples=200, deadline=None)
@given(
    layout=st.sampled_from(list(LAYOUTS)),
    form=st.sampled_from(FORMS),
    text=st.one_of(st.text(), _JSON_VALUES.map(json.dumps)),
    finish=st.sampled_from(["stop", "length", "prompt_too_long", *ENDS]),
)
def test_nothing_that_comes_back_raises(layout: str, form: str, text: str, finish: str) -> None:
    call = a_call(layout, form)
    found = verdicts(answered(call, text, finish), HUNDRED)
    assert len(found) == len(call.items)
    assert all((verdict.score.value is None) == (verdict.score.outcome != "scored") for verdict in found)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_no_answer_takes_long_to_read(layout: str, form: str) -> None:
    call = a_call(layout, form)
    pieces = [
        "<score",
        "<score id=",
        '<score id="',
        "<score id=a ",
        " ",
        "=",
        "=== ",
        "=== x ",
        "===\n",
        "\n",
        "#",
        "```\n",
    ]
    pieces += ['{"items":', '{"analysis": "', "[", '"', "\\", "9"]
    started = time.process_time()
    for piece in pieces:
        for rest in ("", " ", "\n", "x"):
            text = piece + rest * 200_000 if rest else piece * (200_000 // len(piece))
            assert outcomes(call, text) == ["unparsed"] * len(call.items)
    assert time.process_time() - started < 10  # a tenth of a second each; a pattern that goes back takes minutes
