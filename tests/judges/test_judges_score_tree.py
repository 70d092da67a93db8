"""The tree of a scale's answers: whatever a tokenizer merges, weights are products of a model's conditionals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btrm.config import ConfigError
from btrm.judges.score_tree import ScoreTree, build_tree, scale_numerals
from btrm.scores import PARSERS, SCALES, Outcome, Scale, parse_score

Encode = Callable[[str], list[int]]
DIGITS = [str(n) for n in range(10)]
PIECES = st.lists(st.text("<s>/.0123456789", min_size=2, max_size=5), max_size=30)


def greedy_tokenizer(pieces: Sequence[str]) -> Encode:
    """Longest piece first, else single characters: merges across tags, digits and dots as the pieces have it."""
    longest_first = sorted(set(pieces), key=lambda piece: (-len(piece), piece))
    ids: dict[str, int] = {}

    def encode(text: str) -> list[int]:
        found: list[int] = []
        while text:
            piece = next((p for p in longest_first if text.startswith(p)), text[0])
            found.append(ids.setdefault(piece, len(ids)))
            text = text[len(piece) :]
        return found

    return encode


def next_token(tokens: Sequence[int]) -> np.ndarray[Any, Any]:
    """A model of 64 tokens made of a hash: any distribution, the same for the same tokens."""
    rng = np.random.default_rng([7, *tokens])
    logits = rng.normal(0, 2, 64)
    return logits - np.log(np.exp(logits).sum())


def logprobs(tree: ScoreTree) -> np.ndarray[Any, Any]:
    return np.concatenate([next_token(node.tokens)[list(node.children)] for node in tree.nodes])


def brute_force(encode: Encode, scale: Scale, lead: str) -> dict[str, float]:
    """The definition, answer by answer: a token counts where another answer goes on differently."""
    answers = {n: tuple(encode(f"\n{lead}<s>{n}</s>")[1:]) for n in scale_numerals(scale)}
    weights: dict[str, float] = {}
    for numeral, answer in answers.items():
        logprob = 0.0
        for length, token in enumerate(answer):
            going_on = {other[length] for other in answers.values() if other[:length] == answer[:length]}
            if len(going_on) > 1:
                logprob += next_token(answer[:length])[token]
        weights[numeral] = math.exp(logprob)
    return weights


@given(PIECES, st.sampled_from(list(SCALES.values())), st.sampled_from(["", ".", "ab<"]))
@settings(max_examples=60)
def test_weights_are_the_products_of_the_definition_whatever_is_merged(
    pieces: list[str], scale: Scale, lead: str
) -> None:
    encode = greedy_tokenizer(pieces)
    tree = build_tree(encode, scale, lead)
    wanted = brute_force(encode, scale, lead)
    found = tree.expectation(logprobs(tree))
    mass = sum(wanted.values())
    assert found.mass == pytest.approx(min(mass, 1))
    assert {n: w * mass for n, w in found.weights.items()} == pytest.approx(wanted)
    assert found.value == pytest.approx(sum(float(n) * w for n, w in wanted.items()) / mass)
    assert sum(found.weights.values()) == pytest.approx(1)


@given(PIECES)
@settings(max_examples=30)
def test_no_probability_is_counted_twice(pieces: list[str]) -> None:
    for scale in SCALES.values():
        tree = build_tree(greedy_tokenizer(pieces), scale)
        unclipped = sum(math.exp(logprobs(tree)[list(path)].sum()) for path in tree.path_V)
        assert unclipped <= 1 + 1e-9
        assert set(range(tree.n_edges)) == {edge for path in tree.path_V for edge in path}


@pytest.mark.parametrize("scale", list(SCALES.values()), ids=list(SCALES))
def test_every_numeral_is_a_score_of_the_scale_and_each_value_comes_once(scale: Scale) -> None:
    numerals = scale_numerals(scale)
    assert len(numerals) == {"score100": 101, "score5": 41}[scale.name]
    for numeral, value in numerals.items():
        score = parse_score(f"<s>{numeral}</s>", PARSERS[f"{scale.name}_last"])
        assert (score.value, score.outcome) == (value, Outcome.SCORED)


def test_digits_that_are_tokens_part_at_each_digit() -> None:
    encode = greedy_tokenizer([])
    hundred, five = build_tree(encode, SCALES["score100"]), build_tree(encode, SCALES["score5"])
    assert [len(node.children) for node in hundred.nodes] == [10, *[11] * 9, 2]  # 1-9: another digit or the end; 10(0)
    assert [len(node.children) for node in five.nodes] == [5, 10, 10, 10, 10]  # 5.0 alone begins with 5
    assert len(hundred.opening) == len("<s>")
    assert (hundred.depth, five.depth) == (len("<s>10"), len("<s>1."))


def test_numerals_that_are_tokens_part_once() -> None:
    tree = build_tree(greedy_tokenizer([*map(str, range(10, 101))]), SCALES["score100"])
    assert [len(node.children) for node in tree.nodes] == [101]


def test_a_tag_that_merges_with_its_digit_parts_at_the_tag() -> None:
    tree = build_tree(greedy_tokenizer([f"<s>{digit}" for digit in DIGITS]), SCALES["score100"])
    assert tree.opening == ()
    assert [len(node.children) for node in tree.nodes] == [10, *[11] * 9, 2]


def test_tags_that_are_special_tokens_are_one_token_each(chat_with_special_tags: Any) -> None:
    chat, ids = chat_with_special_tags
    tree = build_tree(chat.encode_text, SCALES["score100"])
    assert list(tree.opening) == ids("<s>")
    assert len(tree.opening) == 1
    assert ids("</s>")[0] in tree.nodes[1].children


def test_a_blank_that_a_tokenizer_puts_before_a_text_is_left_out() -> None:
    plain = greedy_tokenizer([])
    tree = build_tree(lambda text: plain(" " + text), SCALES["score5"])
    assert list(tree.opening) == plain("<s>")


def test_scores_that_become_the_same_tokens_are_refused() -> None:
    encode = greedy_tokenizer([])
    with pytest.raises(ConfigError, match=r"alike: 8, 9;"):
        build_tree(lambda text: encode(text.replace("<s>9</s>", "<s>8</s>")), SCALES["score100"])


def test_a_model_that_gives_scores_no_probability_has_none_to_expect() -> None:
    tree = build_tree(greedy_tokenizer([]), SCALES["score5"])
    found = tree.expectation(np.full(tree.n_edges, -np.inf))
    assert (found.mass, dict(found.weights)) == (0, {})
    assert math.isnan(found.value)
