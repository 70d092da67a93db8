"""Guided decoding and flips: what is tried on the first pairs, and what a manifest tells of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from judge_stage import run_stage, use_rule_engine

from btrm.config import ConfigError
from btrm.data.toy import toy_pairs
from btrm.judges import grid
from btrm.judges.base import Completion, JudgeAnswer, JudgeRequest, make_request
from btrm.judges.guided import answer_pattern, guided_judge
from btrm.judges.reproduce import measure_flips, supported
from btrm.judges.rule import RULES, RuleJudge
from btrm.judges.score_tree import scale_numerals
from btrm.judges.trials import count_flip_pairs
from btrm.prompts import PromptSpec, Style, get_prompt
from btrm.runs import RunManifest
from btrm.scores import SCALES

GOOD = {"score100": ["0", "7", "100"], "score5": ["1.0", "4.9", "5.0"]}
BAD = {"score100": ["393", "101", "07", "7.5", ""], "score5": ["0.9", "5.1", "4", "4.25", ""]}


def prompt_of(scale: str, style: Style) -> PromptSpec:
    return replace(get_prompt("toy_score100"), scale=SCALES[scale], style=style)


def requests(n_pairs: int, prompt: PromptSpec, n_samples: int = 2) -> list[JudgeRequest]:
    return [make_request(pair, side, prompt, n_samples, 0) for pair in toy_pairs("test", n_pairs) for side in (0, 1)]


@pytest.mark.parametrize("scale", list(SCALES))
@pytest.mark.parametrize(
    ("style", "before", "after"),
    [("score_only", "", ""), ("score_first", "", "\nGood < bad.\n"), ("reason_first", "1 < 2, so <b> it is\n", "")],
)
def test_a_pattern_takes_scores_of_the_scale_where_the_prompt_wants_them(
    scale: str, style: Style, before: str, after: str
) -> None:
    pattern = re.compile(answer_pattern(prompt_of(scale, style)))
    for numeral in [*GOOD[scale], *scale_numerals(SCALES[scale])]:
        assert pattern.fullmatch(f"{before}<s>{numeral}</s>{after}")
    for numeral in BAD[scale]:
        assert not pattern.fullmatch(f"{before}<s>{numeral}</s>{after}")
    assert not pattern.fullmatch(f"{before}{after}")


def test_prose_before_a_last_score_holds_no_other_tag() -> None:
    pattern = re.compile(answer_pattern(prompt_of("score100", "reason_first")))
    assert not pattern.fullmatch("<s>3</s> or <s>4</s>")
    assert not pattern.fullmatch("<<s>4</s>")
    assert pattern.fullmatch("a <\ns> b <s>4</s>")


class Moody:
    """Answers with its number of calls where its turn has come: an engine whose answers depend on the batch."""

    def __init__(self, every: int) -> None:
        self.calls, self.every = 0, every

    def ask(self, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        self.calls += 1
        return [JudgeAnswer((self._say(r, 0), self._say(r, 1)), 3) for r in requests]

    def _say(self, request: JudgeRequest, sample: int) -> Completion:
        changed = self.calls > 1 and request.side == 0 and sample < self.every
        return Completion("<s>9</s>" if changed else "<s>8</s>" + " well" * (self.calls > 1), "stop", 3)


def test_flips_of_texts_and_of_scores_are_counted_apart() -> None:
    prompt = prompt_of("score100", "score_first")
    found = measure_flips(Moody(1), requests(5, prompt), prompt)
    assert found == {"pairs": 5, "answers": 20, "changed_completions": 1.0, "changed_scores": 0.25}
    rule = RuleJudge(RULES["rule_random"], prompt)
    assert measure_flips(rule, requests(5, prompt), prompt)["changed_completions"] == 0


@pytest.mark.parametrize(
    ("capability", "version", "mode"),
    [
        ((9, 0), "0.32.0", "on"),
        ((10, 0), "0.23.0+cu130", "on"),
        ((9, 0), "0.11.0", "off"),
        ((8, 0), "0.21.0", "off"),
        ((8, 6), "0.23.0", "on"),
        ((7, 5), "0.32.0", "off"),
    ],
)
def test_batch_invariance_is_asked_for_where_release_and_gpu_have_it(
    capability: tuple[int, int], version: str, mode: str
) -> None:
    assert supported(capability, version) == mode


def test_flips_are_counted_by_default_where_nothing_promises_that_there_are_none() -> None:
    assert [count_flip_pairs(None, mode) for mode in ("cpu", "on", "off")] == [0, 0, 32]
    assert [count_flip_pairs(wanted, "off") for wanted in (0, 5)] == [0, 5]


def test_a_manifest_tells_how_often_answers_flipped(tmp_path: Path, pairs_file: Path, tiny_model: Path) -> None:
    use_rule_engine()
    config: dict[str, Any] = {"checkpoints": {"tiny": str(tiny_model)}, "base": None, "pairs": str(pairs_file)}
    config |= {"seeds": (0,), "flip_check": 3}
    manifest: RunManifest = run_stage("judge", grid.JudgeConfig.build(config), tmp_path / "run")
    assert manifest.results["trials"] == [
        {
            "judge": "tiny",
            "prompt": "toy_score100",
            "batch_invariance": "cpu",
            "flips": {"pairs": 3, "answers": 12, "changed_completions": 0.0, "changed_scores": 0.0},
        }
    ]


def test_guiding_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(ConfigError, match="guided score: transformers decodes freely only; take engine vllm"):
        grid.JudgeConfig.build({"guided": "score"})
    with pytest.raises(ConfigError, match="generates nothing to be guided"):
        grid.JudgeConfig.build(
            {"guided": "score", "engine": "vllm", "method": "expected", "n_samples": 1, "seeds": (0,)}
        )
    rule: Any = RuleJudge(RULES["rule_random"], get_prompt("toy_score100"))
    with pytest.raises(ConfigError, match="RuleJudge cannot be guided"):
        guided_judge(rule, rule, get_prompt("toy_score100"))
