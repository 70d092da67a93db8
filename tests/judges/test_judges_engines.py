"""Both engines on one tiny random model: the same greedy tokens, and answers that do not depend on company."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from btrm.data.toy import toy_pairs
from btrm.judges.base import JudgeAnswer, JudgeRequest, Sampling, make_request
from btrm.judges.decode import draw
from btrm.judges.engine import EngineSpec, OpenEngine
from btrm.judges.token_rows import LAST, pack
from btrm.judges.transformers import open_transformers
from btrm.judges.vllm import open_vllm, own_dtype
from btrm.prompts import get_prompt

ENGINES: dict[str, OpenEngine] = {"transformers": open_transformers, "vllm": open_vllm}


def spec(model: Path, temperature: float, max_length: int = 512) -> EngineSpec:
    return EngineSpec(str(model), 4, Sampling(temperature, 0.9, 50, 16), "float32", max_length, 32, 64, 0.9, 1)


def requests(n_pairs: int, n_samples: int) -> list[JudgeRequest]:
    prompt = get_prompt("toy_score100")
    return [make_request(pair, side, prompt, n_samples, 0) for pair in toy_pairs("test", n_pairs) for side in (0, 1)]


def texts(answers: list[JudgeAnswer]) -> list[list[str]]:
    return [[completion.text for completion in answer.completions] for answer in answers]


@pytest.mark.slow
def test_the_engines_agree_on_greedy_answers_of_a_model_and_its_adapters(
    tiny_model: Path, adapters: Path, need_vllm: None
) -> None:
    del need_vllm
    found: dict[str, list[list[JudgeAnswer]]] = {}
    for name, opener in ENGINES.items():
        with opener(spec(tiny_model, 0)) as engine:
            found[name] = []
            for adapter in (None, adapters / "checkpoint-5", adapters / "checkpoint-10", None):
                engine.select(adapter)
                found[name].append(engine.ask(requests(10, 1)))
    assert found["vllm"] == found["transformers"]
    base, first, second, again = (texts(answers) for answers in found["vllm"])
    assert base == again
    assert base != first != second != base


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENGINES))
def test_an_answer_does_not_depend_on_what_is_asked_beside_it(name: str, tiny_model: Path, need_vllm: None) -> None:
    del need_vllm
    environment, state = dict(os.environ), random.getstate()
    with ENGINES[name](spec(tiny_model, 0.7)) as engine:
        engine.select(None)
        asked = requests(10, 3)
        whole = engine.ask(asked)
        assert engine.ask(asked[::-1][5:9]) == whole[::-1][5:9]
    assert len({text for sample in texts(whole) for text in sample}) == len(asked) * 3
    assert dict(os.environ) == environment
    assert random.getstate() == state


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENGINES))
def test_a_prompt_that_is_too_long_is_an_outcome(name: str, tiny_model: Path, need_vllm: None) -> None:
    del need_vllm
    asked = requests(4, 2)
    with ENGINES[name](spec(tiny_model, 0.7)) as engine:
        engine.select(None)
        lengths = sorted(answer.prompt_tokens for answer in engine.ask(asked))
    limit = lengths[4] + 16
    with ENGINES[name](spec(tiny_model, 0.7, max_length=limit)) as engine:
        engine.select(None)
        answers = engine.ask(asked)
    for answer in answers:
        assert len(answer.completions) == 2
        too_long = answer.prompt_tokens + 16 > limit
        assert (answer.completions[0].finish_reason == "prompt_too_long") == too_long
    assert any(a.completions[0].finish_reason == "prompt_too_long" for a in answers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_auto_is_the_type_that_weights_were_saved_in(tmp_path: Path, dtype: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "dtype": dtype}))
    assert own_dtype(str(tmp_path)) == dtype


def test_draws_follow_the_distribution_after_temperature_top_k_and_top_p() -> None:
    import torch

    probability = [0.5, 0.25, 0.15, 0.06, 0.04]
    logits = torch.tensor(probability).log().repeat(20_000, 1)
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def shares(sampling: Sampling) -> list[float]:
        return (torch.bincount(draw(logits, uniform, sampling), minlength=5) / 20_000).tolist()

    assert shares(Sampling(1.0, 1.0, 0, 1)) == pytest.approx(probability, abs=0.012)
    assert shares(Sampling(1.0, 1.0, 2, 1)) == pytest.approx([2 / 3, 1 / 3, 0, 0, 0], abs=0.012)
    assert shares(Sampling(1.0, 0.8, 0, 1)) == pytest.approx([5 / 9, 2.5 / 9, 1.5 / 9, 0, 0], abs=0.012)
    squared = [p**2 for p in probability]
    assert shares(Sampling(0.5, 1.0, 0, 1)) == pytest.approx([p / sum(squared) for p in squared], abs=0.012)
    assert shares(Sampling(0.0, 1.0, 0, 1)) == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [(([1, 2, 3], [1, 2, 4, 5]), 2), (([1, 2], [1, 2, 3]), 1), (([1], [2]), 0), (([1, 2, 3],), 2), (([7], [7]), 0)],
)
def test_each_prompt_keeps_a_token_of_its_own(prompts: tuple[list[int], ...], shared: int) -> None:
    row = pack(prompts, [LAST] * len(prompts))
    assert len(row.shared_S) == shared
    assert [int(row.token_Q[at_N[0]]) for at_N in row.at_QN] == [prompt[-1] for prompt in prompts]
    assert [int(row.position_Q[at_N[0]]) for at_N in row.at_QN] == [len(prompt) - 1 for prompt in prompts]


def test_a_score_tag_survives_a_tokenizer_in_which_it_is_special(chat_with_special_tags: Any) -> None:
    chat, ids = chat_with_special_tags
    answer = chat.completion(ids("<s>73</s>") + ids("</s>"))
    assert (answer.text, answer.finish_reason) == ("<s>73</s>", "stop")
    assert chat.completion(ids("<s>73")).text == "<s>73"
