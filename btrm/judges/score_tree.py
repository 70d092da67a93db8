"""Every answer that is a score of a scale, as a tree of one tokenizer's tokens.

A model's probability of a numeral is a product along the tree. The tree comes from the tokenizer alone: digits that are
tokens of their own, numerals that are one token, a tag that merges with what it holds, and `<s>` or `</s>` as one
special token all give their own tree, and nothing here asks which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btrm.config import ConfigError
from btrm.judges.base import Expectation
from btrm.scores import Scale, score_tag

Encode = Callable[[str], list[int]]
Tokens = tuple[int, ...]
Logprobs = NDArray[np.float64]
# What an answer follows in a chat template; behind it a tokenizer writes a text as in the middle of another.
_BEFORE = "\n"


def scale_numerals(scale: Scale) -> dict[str, float]:
    """Return {numeral: value} of a scale from low to high, each value written once, as a judge should write it."""
    unit = 10**scale.decimals
    steps = range(round(scale.low * unit), round(scale.high * unit) + 1)
    return {scale.numeral(step / unit): step / unit for step in steps}


@dataclass(frozen=True, slots=True)
class Node:
    """A place where answers part: the tokens that lead to it, and the tokens that may come next.

    `first` is the number of its first edge; `above` are the edges that lead here.
    """

    tokens: Tokens
    children: Tokens
    first: int
    above: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScoreTree:
    """The canonical answers of a scale: where they part (E edges in all), and each numeral's way through (V numerals).

    `opening` are the tokens that all answers begin with; they and every other token that has no alternative count as
    certain. `path_V[v]` are the edges whose probabilities make up numeral v's weight.
    """

    numerals: tuple[str, ...]
    value_V: NDArray[np.float64]
    nodes: tuple[Node, ...]
    path_V: tuple[tuple[int, ...], ...]
    opening: Tokens

    @property
    def n_edges(self) -> int:
        """How many probabilities the weights are made of."""
        return self.nodes[-1].first + len(self.nodes[-1].children)

    @property
    def depth(self) -> int:
        """The most tokens that stand before a place where answers part."""
        return max(len(node.tokens) for node in self.nodes)

    def expectation(self, logprob_E: Logprobs) -> Expectation:
        """Return the expected score where the edges have these natural-log probabilities.

        weight(v) is the product along numeral v's way, mass the sum of all weights, and the score the mean of the
        values under the normalised weights. NaN where no numeral has any probability.
        """
        weight_V = np.exp([logprob_E[list(path)].sum() for path in self.path_V])
        mass = float(weight_V.sum())
        if mass == 0:
            return Expectation(float("nan"), {}, 0.0)
        share_V = weight_V / mass
        weights = {n: float(w) for n, w in zip(self.numerals, share_V, strict=True) if w > 0}
        return Expectation(float(share_V @ self.value_V), weights, min(mass, 1.0))


@dataclass(frozen=True, slots=True)
class Query:
    """A prompt, up to where an answer begins, and the tree of what may follow it."""

    prompt: Sequence[int]
    tree: ScoreTree


def build_tree(encode: Encode, scale: Scale, lead: str = "") -> ScoreTree:
    """Return the tree of `lead<s>NN</s>` over all numerals of a scale.

    `encode` turns a text into token ids and adds none of its own; `lead` is text whose token reaches into the tag.
    Where two numerals become the same tokens, nothing can tell them apart: ConfigError.
    """
    numerals = scale_numerals(scale)
    answers = {n: _encode_within(encode, lead + score_tag(v, scale)) for n, v in numerals.items()}
    nodes = tuple(_nodes(list(answers.values())))
    paths = tuple(_path(nodes, answer) for answer in answers.values())
    alike = [n for n, path in zip(answers, paths, strict=True) if paths.count(path) > 1]
    if alike:
        raise ConfigError(
            f"the tokenizer writes these scores alike: {', '.join(alike)}; an expected score needs others"
        )
    return ScoreTree(tuple(answers), np.array(list(numerals.values())), nodes, paths, nodes[0].tokens)


def _encode_within(encode: Encode, text: str) -> Tokens:
    """Encode as what follows other text: some tokenizers put a blank before whatever begins a text."""
    before, whole = encode(_BEFORE), encode(_BEFORE + text)
    if before and whole[: len(before)] == before:
        return tuple(whole[len(before) :])
    return tuple(encode(text))


def _nodes(answers: Sequence[Tokens]) -> list[Node]:
    """Return the places where answers part, parents before children; no answer is the beginning of another."""
    children: dict[Tokens, dict[int, None]] = {}
    for answer in answers:
        for length, token in enumerate(answer):
            children.setdefault(answer[:length], {})[token] = None
    nodes: list[Node] = []
    first = 0
    for tokens in sorted((prefix for prefix, next_ in children.items() if len(next_) > 1), key=len):
        nodes.append(Node(tokens, tuple(children[tokens]), first, _path(nodes, tokens)))
        first += len(children[tokens])
    return nodes


def _path(nodes: Sequence[Node], answer: Tokens) -> tuple[int, ...]:
    """Return the edges that lead along an answer."""
    on_way = (node for node in nodes if len(node.tokens) < len(answer) and answer[: len(node.tokens)] == node.tokens)
    return tuple(node.first + node.children.index(answer[len(node.tokens)]) for node in on_way)
