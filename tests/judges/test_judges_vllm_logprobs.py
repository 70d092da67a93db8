"""What vLLM is asked about a score tree: parents first, hardly ever reached places only where they matter."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from btrm.config import ConfigError
from btrm.judges import vllm_logprobs
from btrm.judges.score_tree import Query, build_tree
from btrm.judges.token_rows import check_window
from btrm.judges.vllm_logprobs import node_logprobs
from btrm.scores import SCALES

TREE = build_tree(lambda text: [ord(letter) for letter in text], SCALES["score100"])


class Engine:
    """Gives the token of `likely` that comes next all but `rest` of the probability, which the others share."""

    def __init__(self, likely: str, rest: float) -> None:
        self.likely, self.rest = likely, rest
        self.asked: list[list[str]] = []

    def run(self, prompts: Sequence[Sequence[int]], parameters: Sequence[Sequence[int]]) -> list[Any]:
        texts = ["".join(map(chr, prompt)).partition("|")[2] for prompt in prompts]
        if texts:
            self.asked.append(texts)
        return [self._answer(text, children) for text, children in zip(texts, parameters, strict=True)]

    def _answer(self, text: str, children: Sequence[int]) -> Any:
        answer = f"<s>{self.likely}</s>"
        wanted = ord(answer[len(text)]) if answer.startswith(text) and len(text) < len(answer) else -1
        found = {t: SimpleNamespace(logprob=np.log(1 - self.rest if t == wanted else self.rest / 12)) for t in children}
        return SimpleNamespace(outputs=[SimpleNamespace(logprobs=[found])])


@pytest.fixture(autouse=True)
def plain_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_logprobs, "_parameters", lambda node: node.children)


def queries(count: int) -> list[Query]:
    return [Query([ord(letter) for letter in f"{number:03}|"], TREE) for number in range(count)]


def test_a_sure_model_is_asked_along_its_way_only() -> None:
    engine = Engine("73", 1e-9)
    (logprob_E,) = node_logprobs(engine.run, queries(1), 1000)
    assert engine.asked == [["<s>"], ["<s>7"]]
    found = TREE.expectation(logprob_E)
    assert found.value == pytest.approx(73, abs=1e-5)
    assert found.mass == pytest.approx(1, abs=1e-6)


def test_a_doubtful_model_is_asked_about_every_place_once_parents_first() -> None:
    engine = Engine("100", 0.5)
    node_logprobs(engine.run, queries(2), 1000)
    assert engine.asked[0] == ["<s>", "<s>"]
    assert sorted(engine.asked[1]) == sorted([f"<s>{digit}" for digit in range(1, 10)] * 2)
    assert engine.asked[2:] == [["<s>10", "<s>10"]]


def test_places_hardly_ever_reached_are_asked_about_where_scores_are_no_likelier() -> None:
    engine = Engine("x", 1e-8)  # its way leads away from the scores: each digit has 1e-9
    (logprob_E,) = node_logprobs(engine.run, queries(1), 1000)
    assert not np.isneginf(logprob_E).any()
    assert sorted(text for level in engine.asked for text in level) == sorted(
        ["<s>", *(f"<s>{digit}" for digit in range(1, 10)), "<s>10"]
    )


def test_prompts_are_asked_about_in_groups_that_stay_in_the_cache() -> None:
    engine = Engine("7", 1e-9)
    logprobs = node_logprobs(engine.run, queries(6), 8)  # 4 tokens each
    assert [len(level) for level in engine.asked] == [1, 1, 2, 2, 2, 2, 1, 1]
    assert len(logprobs) == 6
    assert all(TREE.expectation(logprob_E).value == pytest.approx(7, abs=1e-5) for logprob_E in logprobs)


def model_of(**config: Any) -> Any:
    text = SimpleNamespace(model_type="toy", **config)
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))


def test_layers_that_see_less_than_a_row_are_refused() -> None:
    check_window(model_of(), 5000)
    check_window(model_of(sliding_window=None, layer_types=["full_attention"]), 5000)
    check_window(model_of(sliding_window=4096), 4095)
    with pytest.raises(ConfigError, match="toy: a model with layers that see 4096 tokens needs engine vllm"):
        check_window(model_of(sliding_window=4096), 4096)
    with pytest.raises(ConfigError, match="linear_attention layers"):
        check_window(model_of(layer_types=["full_attention", "linear_attention"]), 10)
