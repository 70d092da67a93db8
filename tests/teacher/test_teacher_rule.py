from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import islice

import pytest
from hostile_responses import FORMS, HOSTILE, LAYOUTS, answered, by_label, calls_of, pair_of, settings

from btrm.data.toy import toy_pairs
from btrm.judges.base import Sampling, make_request, request_seed
from btrm.judges.cells import Cell
from btrm.judges.rule import RULES, RuleJudge
from btrm.prompts import get_prompt
from btrm.records import PreferencePair
from btrm.teacher.backends.rule import RuleBackend
from btrm.teacher.base import RowKey
from btrm.teacher.config import TeacherConfig
from btrm.teacher.rows import judgements


def taught(config: TeacherConfig, pairs: dict[int, PreferencePair]) -> dict[RowKey, str]:
    """The completion of each row."""

    async def ask() -> dict[RowKey, str]:
        backend = RuleBackend(config)
        cell = Cell("part", "r", "r", None, get_prompt(config.prompt), Sampling(1.0, 1.0, 0, 9), config.n_samples, 0)
        rows: dict[RowKey, str] = {}
        for call in calls_of(config, pairs):
            reply = await backend.ask(call)
            for row in judgements(answered(call, reply.text, reply.finish_reason), cell, by_label(pairs)):
                assert row.outcome == "scored" and reply.usage.input > 0 and reply.usage.output > 0
                rows[row.label_id, row.side, row.sample] = row.completion
        await backend.close()
        return rows

    return asyncio.run(ask())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prompt", ["toy_score100", "score5_v1"])
def test_a_rule_teaches_what_it_judges(rule: str, layout: str, form: str, prompt: str) -> None:
    """In every layout and form, to the letter: what students were taught before stays what they are taught."""
    pairs = dict(enumerate(islice(toy_pairs("train", 30), 30)))
    config = settings(layout, form, backend=rule, prompt=prompt, n_samples=3, seed=11)
    judge = RuleJudge(RULES[rule], get_prompt(prompt))
    expected: dict[RowKey, str] = {}
    for pair in pairs.values():
        for side in (0, 1):
            asked = make_request(pair, side, get_prompt(prompt), 3, 11)
            (answer,) = judge.ask([replace(asked, seed=request_seed(11, pair.label_id, side, 3))])
            expected |= {(pair.label_id, side, j): one.text for j, one in enumerate(answer.completions)}
    assert taught(config, pairs) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_a_rule_answers_about_any_text(layout: str, form: str) -> None:
    pairs = {n: pair_of(n, text, text[::-1], text) for n, text in enumerate(HOSTILE) if len(text) < 1000}
    assert len(taught(settings(layout, form), pairs)) == 2 * len(pairs)
