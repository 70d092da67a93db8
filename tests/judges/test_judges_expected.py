"""Expected scores: both engines give what separate forward passes over every answer give."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_judges_engines import ENGINES, spec

from btrm.config import ConfigError
from btrm.data.toy import toy_pairs
from btrm.judges.ask import judgements
from btrm.judges.base import JudgeRequest, make_request
from btrm.judges.cells import Cell
from btrm.judges.chat import Chat
from btrm.judges.expected import expected_judge
from btrm.judges.grid import JudgeConfig
from btrm.judges.guided import guided_judge, measure_guiding
from btrm.judges.opening import find_opening
from btrm.judges.rule import RULES, RuleJudge
from btrm.judges.score_tree import Logprobs, Query, build_tree, scale_numerals
from btrm.judges.token_rows import pack, tree_leaves
from btrm.prompts import PromptSpec, Style, get_prompt
from btrm.scores import SCALES

REASONINGS = ("Well put. <s>73</s>", "<s>1</s> No: <s>4</s> then <s>9", "nothing to score")


def prompt_of(scale: str, style: Style) -> PromptSpec:
    return replace(get_prompt("toy_score100"), scale=SCALES[scale], style=style)


def requests(prompt: PromptSpec, n_pairs: int = 3, n_samples: int = 1) -> list[JudgeRequest]:
    return [make_request(pair, side, prompt, n_samples, 0) for pair in toy_pairs("test", n_pairs) for side in (0, 1)]


@dataclass
class Scripted:
    """An engine whose samples are written beforehand; where it has no engine, all its answers are equally likely."""

    chat: Chat
    texts: Sequence[str]
    engine: Any = None

    def select(self, adapter: Path | None) -> None:
        del adapter

    def ask(self, requests: Sequence[JudgeRequest]) -> Any:
        raise AssertionError(f"{len(requests)} requests: not the engine's own texts")

    def sample(self, requests: Sequence[JudgeRequest], prompts: Sequence[list[int]]) -> list[list[list[int]]]:
        end = next(iter(self.chat.end_ids))
        samples = [[*self.chat.encode_text(text), end] for text in self.texts]
        return [samples[: request.n_samples] for request, _ in zip(requests, prompts, strict=True)]

    def node_logprobs(self, queries: Sequence[Query]) -> list[Logprobs]:
        if self.engine is not None:
            return self.engine.node_logprobs(queries)
        return [
            np.concatenate([np.full(len(n.children), -np.log(len(n.children))) for n in q.tree.nodes]) for q in queries
        ]


@pytest.fixture(scope="module")
def engines(tiny_model: Path, adapters: Path, need_vllm: None) -> Iterator[dict[str, Any]]:
    del need_vllm, adapters
    with ExitStack() as stack:
        yield {name: stack.enter_context(opener(spec(tiny_model, 0.7))) for name, opener in ENGINES.items()}


def brute_force(model: Any, chat: Chat, prompt: Sequence[int], scale: str) -> dict[str, float]:
    """Each answer alone through the model, in double precision; where only one token can follow, it is certain."""
    import torch

    answers = {n: tuple(chat.encode_text(f"<s>{n}</s>")) for n in scale_numerals(SCALES[scale])}
    weights: dict[str, float] = {}
    with torch.inference_mode():
        for numeral, answer in answers.items():
            logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 :]
            logprob_TV = torch.log_softmax(logits, -1)
            ways = [{a[t] for a in answers.values() if a[:t] == answer[:t]} for t in range(len(answer))]
            chosen = [float(logprob_TV[t, answer[t]]) for t in range(len(answer)) if len(ways[t]) > 1]
            weights[numeral] = float(np.exp(sum(chosen)))
    return weights


@pytest.mark.slow
def test_both_engines_give_what_whole_passes_over_all_answers_give(
    engines: dict[str, Any], tiny_model: Path, adapters: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base: Any = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    for folder in (None, adapters / "checkpoint-5"):
        model: Any = base if folder is None else PeftModel.from_pretrained(base, str(folder)).eval()
        model = model.double()
        for name, engine in engines.items():
            engine.select(folder)
            for scale in SCALES:
                asked = requests(prompt_of(scale, "score_only"), 1)
                answers = expected_judge(engine, prompt_of(scale, "score_only"), 16, 0.0).ask(asked)
                for tokens, answer in zip(engine.chat.encode(asked), answers, strict=True):
                    wanted = brute_force(model, engine.chat, tokens, scale)
                    mass, found = sum(wanted.values()), answer.completions[0].expectation
                    assert found is not None
                    assert found.mass == pytest.approx(mass, rel=1e-4), (name, folder, scale)
                    shares = {numeral: weight / mass for numeral, weight in wanted.items()}
                    assert {n: found.weights.get(n, 0.0) for n in shares} == pytest.approx(shares, abs=1e-5)
                    width = SCALES[scale].high - SCALES[scale].low
                    mean = sum(float(n) * share for n, share in shares.items())
                    assert found.value == pytest.approx(mean, abs=1e-5 * width)


@pytest.mark.slow
@pytest.mark.parametrize("scale", list(SCALES))
def test_both_engines_agree_after_reasoning(scale: str, engines: dict[str, Any], adapters: Path) -> None:
    prompt = prompt_of(scale, "reason_first")
    found: dict[str, list[Any]] = {}
    for name, engine in engines.items():
        engine.select(adapters / "checkpoint-10")
        scripted = Scripted(engine.chat, REASONINGS, engine)
        answers = expected_judge(scripted, prompt, 16, 0.0).ask(requests(prompt, 2, 3))
        found[name] = [c for answer in answers for c in answer.completions]
    assert len(found["vllm"]) == 12
    for left, right in zip(found["vllm"], found["transformers"], strict=True):
        assert (left.text, left.tokens) == (right.text, right.tokens)
        assert (left.expectation is None) == (right.expectation is None) == (left.text == "nothing to score")
        if left.expectation is not None:
            width = SCALES[scale].high - SCALES[scale].low
            assert left.expectation.value == pytest.approx(right.expectation.value, abs=1e-5 * width)
            assert left.expectation.mass == pytest.approx(right.expectation.mass, rel=1e-4)


@pytest.mark.slow
def test_a_neighbour_changes_no_expected_score(engines: dict[str, Any]) -> None:
    prompt = prompt_of("score5", "score_first")
    asked = requests(prompt, 8)
    for engine in engines.values():
        engine.select(None)
        judge = expected_judge(engine, prompt, 16, 0.0)
        whole, alone = judge.ask(asked), judge.ask(asked[::-1][3:6])[::-1]
        for left, right in zip(whole[-6:-3], alone, strict=True):
            first, second = left.completions[0].expectation, right.completions[0].expectation
            assert first is not None
            assert second is not None
            assert first.value == pytest.approx(second.value, abs=1e-4)


@pytest.mark.slow
def test_a_guided_engine_writes_scores_only_and_is_free_again_afterwards(engines: dict[str, Any]) -> None:
    engine = engines["vllm"]
    engine.select(None)
    for scale, kinds in (("score100", 6), ("score5", 2)):
        prompt = prompt_of(scale, "score_only")
        judge = guided_judge(engine, engine, prompt)
        asked = requests(prompt, 6, 2)
        effect = measure_guiding(judge, asked, prompt)
        assert effect == {"pairs": 6, "answers": 24, "unparsed_free": 1.0, "unparsed_guided": 0.0}
        answers = judge.ask(asked)
        assert len({c.text for answer in answers for c in answer.completions}) > kinds
        assert judge.ask(asked[5:7]) == answers[5:7]


@pytest.fixture
def chat(tiny_chat: Chat) -> Chat:
    return tiny_chat


@pytest.fixture(scope="module")
def tiny_chat(tiny_model: Path) -> Chat:
    return Chat.open(str(tiny_model), 512)


def test_an_answer_names_the_likeliest_score_and_its_row_holds_the_mean(chat: Chat) -> None:
    prompt = prompt_of("score5", "score_only")
    judge = expected_judge(Scripted(chat, ()), prompt, 16, 0.5)
    cell = Cell("c", "j", "h", None, prompt, spec(Path("m"), 0.7).sampling, 1, 0, "test", "expected")
    row, *_ = judgements(cell, judge, toy_pairs("test", 1))
    assert (row.completion, row.method, row.outcome) == ("<s>5.0</s>", "expected", "scored")
    assert row.score == pytest.approx(0.2 * (1.45 + 2.45 + 3.45 + 4.45 + 5.0))
    distribution = json.loads(row.distribution or "")
    assert distribution["mass"] == pytest.approx(1)
    assert distribution["weights"]["5.0"] == pytest.approx(0.2)
    assert len(distribution["weights"]) == 41


def test_too_little_mass_is_unparsed_and_keeps_its_distribution(chat: Chat) -> None:
    prompt = prompt_of("score100", "reason_first")

    class Doubtful(Scripted):
        def node_logprobs(self, queries: Sequence[Query]) -> list[Logprobs]:
            return [logprob_E - 2 for logprob_E in super().node_logprobs(queries)]

    judge = expected_judge(Doubtful(chat, REASONINGS), prompt, 16, 0.5)
    cell = Cell("c", "j", "h", None, prompt, spec(Path("m"), 0.7).sampling, 3, 0, "test", "expected")
    rows = list(judgements(cell, judge, toy_pairs("test", 1)))[:3]
    assert [row.completion for row in rows] == ["Well put. <s></s>", "<s>1</s> No: <s></s>", "nothing to score"]
    assert {(row.outcome, row.score, row.method) for row in rows} == {("unparsed", None, "expected")}
    assert [row.distribution is None for row in rows] == [False, False, True]


def test_a_prompt_without_room_for_the_score_is_an_outcome(tiny_model: Path) -> None:
    prompt = prompt_of("score100", "score_only")
    asked = requests(prompt, 4)
    whole = Chat.open(str(tiny_model), 512)
    lengths = sorted(map(len, whole.encode(asked)))
    tree = build_tree(whole.encode_text, prompt.scale)
    limit = lengths[4] + tree.depth + 1
    answers = expected_judge(Scripted(replace(whole, max_length=limit), ()), prompt, 16).ask(asked)
    outcomes = [answer.completions[0].finish_reason == "prompt_too_long" for answer in answers]
    assert outcomes == [answer.prompt_tokens + tree.depth + 1 > limit for answer in answers]
    assert True in outcomes
    assert False in outcomes


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("<s>7</s>", ""),
        ("a <s>7</s> b <s>8</s> c", "a <s>7</s> b "),
        ("a <s>7</s> b <s>8", "a "),  # the last whole tag is what a parser reads
        ("a <s>8", "a "),
        ("über <s>8</s>", "über "),
        ("a < s>8</s>", None),
    ],
)
def test_the_last_tag_that_a_parser_reads_is_where_a_score_is_expected(
    text: str, before: str | None, chat: Chat
) -> None:
    opening = find_opening(chat, [*chat.encode_text(text), *chat.end_ids])
    assert (opening and opening.before) == before
    if opening is not None:
        assert chat.text(opening.tokens) == before
        assert opening.lead == ""


def test_a_token_that_reaches_into_the_tag_is_written_again() -> None:
    class Merging:
        """`.<` is one token."""

        def text(self, ids: Sequence[int]) -> str:
            return "".join(["good", ".<", "s>", "7", "</s>"][i] for i in ids)

        def end(self, ids: Sequence[int]) -> int | None:
            del ids
            return None

        def completion(self, ids: Sequence[int]) -> Any:
            return type("Said", (), {"text": self.text(ids)})

    merging: Any = Merging()
    opening = find_opening(merging, [0, 1, 2, 3, 4])
    assert opening is not None
    assert (opening.tokens, opening.before, opening.lead) == ([0], "good.", ".")


def test_a_row_holds_each_shared_token_once_and_hides_the_other_side(chat: Chat) -> None:
    tree = build_tree(chat.encode_text, SCALES["score5"])
    row = pack([[1, 2, 3, 4], [1, 2, 5, 6, 7]], [tree_leaves(tree)] * 2)
    inner = 1 + len({n.tokens[:k] for n in tree.nodes for k in range(1, len(n.tokens) + 1)})
    assert row.shared_S.tolist() == [1, 2]
    assert row.token_Q[:3].tolist() == [3, 5, 6]
    assert len(row.token_Q) == 3 + 2 * inner
    assert row.position_Q[:3].tolist() == [2, 2, 3]
    last = 3  # the first prompt's last token
    assert (int(row.token_Q[last]), int(row.position_Q[last])) == (4, 3)
    assert np.flatnonzero(row.seen_QL[last]).tolist() == [0, 1, 2, 2 + last]  # the shared two, its own 3 and itself
    deepest = row.at_QN[1][-1]
    assert row.seen_QL[deepest].sum() == row.position_Q[deepest] + 1


def test_a_method_that_gives_one_answer_wants_one_sample_and_one_seed() -> None:
    one = {"n_samples": 1, "seeds": (0,)}
    wrong = "gives one answer: take n_samples 1 and one seed"
    for given in ({"method": "greedy"}, {"method": "expected"}, {"temperature": 0}):
        with pytest.raises(ConfigError, match=wrong):
            JudgeConfig.build(given)
        assert JudgeConfig.build(given | one).n_samples == 1
    reasoned = JudgeConfig.build({"method": "expected", "prompt": "hh_score100_v3", "max_new_tokens": 64})
    assert len(reasoned.seeds) * reasoned.n_samples == 6
    assert JudgeConfig.build({"method": "greedy", **one}).sampling.temperature == 0


def test_a_judge_without_probabilities_cannot_be_expected_of() -> None:
    rule: Any = RuleJudge(RULES["rule_random"], get_prompt("toy_score100"))
    with pytest.raises(ConfigError, match="RuleJudge tells no probabilities"):
        expected_judge(rule, get_prompt("toy_score100"), 16)
