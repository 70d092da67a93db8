"""What is kept in an API's cache, and that calls which share it go one after the first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from btrm.records import PreferencePair
from btrm.teacher.backends.anthropic import request
from btrm.teacher.caching import cacheable, kept
from btrm.teacher.config import TeacherConfig
from btrm.teacher.drive import _groups  # pyright: ignore[reportPrivateUsage]
from btrm.teacher.layouts import make_calls

LONG = "a fairly ordinary word or two " * 200


def config(**values: Any) -> TeacherConfig:
    return TeacherConfig.build({"backend": "anthropic", "model": "claude-x", **values})


def calls_of(teacher: TeacherConfig, context: str, pairs: int = 2) -> list[Any]:
    made = [PreferencePair.make(f"{context}{n}", ("yes", "no"), 0, source="s", split="train") for n in range(pairs)]
    keys = [(p.label_id, side, k) for p in made for side in (0, 1) for k in range(teacher.n_samples)]
    return list(make_calls(teacher, dict(enumerate(made)), keys))


@pytest.mark.parametrize(
    ("values", "context", "worth_it"),
    [
        ({}, LONG, True),
        ({}, "short", False),
        ({"prompt_cache": "on"}, "short", True),
        ({"prompt_cache": "off"}, LONG, False),
        ({"layout": "pairwise"}, LONG, False),  # one call a pair shares nothing
        ({"layout": "pairwise", "n_samples": 2}, LONG, True),
        ({"batch_size": 2, "n_samples": 4}, LONG, False),
        ({"backend": "rule_toy", "prompt_cache": "on"}, LONG, False),
    ],
)
def test_what_is_worth_keeping(values: dict[str, Any], context: str, worth_it: bool) -> None:
    teacher = config(**values)
    calls = calls_of(teacher, context)
    assert {cacheable(teacher, call) for call in calls} == {worth_it}
    if teacher.backend == "anthropic":
        assert ("cache_control" in str(request(teacher, calls[0]))) is worth_it


@pytest.mark.parametrize("fields", [{"layout": "pairwise"}, {"batch_size": 2}, {}])
def test_a_long_system_prompt_is_kept_by_itself(fields: dict[str, Any]) -> None:
    for values, words, worth_it in (
        ({}, LONG, True), ({}, "Grade it.", False), ({"prompt_cache": "on"}, "Grade it.", True),
        ({"prompt_cache": "off"}, LONG, False),
    ):  # fmt: skip
        teacher = config(**fields, **values)
        call = replace(calls_of(teacher, "short")[0], system=words)
        assert ("cache_control" in request(teacher, call)["system"][0]) is worth_it
        assert bool(kept(teacher, call)) is worth_it
        if fields and not values:
            assert "cache_control" not in str(request(teacher, call)["messages"])


def test_both_sides_begin_with_the_same_bytes() -> None:
    teacher = config()
    first, second = (request(teacher, call) for call in calls_of(teacher, LONG, 1))
    assert first["system"] == second["system"]
    assert first["messages"][0]["content"][0] == second["messages"][0]["content"][0]
    assert first["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}


def test_groups_are_led_by_their_first_call_and_nothing_is_read_ahead() -> None:
    teacher = config(n_samples=2)
    calls = calls_of(teacher, LONG, 3)
    assert [len(group) for group in _groups(iter(calls), lambda _: True)] == [4, 4, 4]
    assert [len(group) for group in _groups(iter(calls), lambda _: False)] == [1] * 12
    several = calls_of(config(batch_size=2), LONG, 6)
    source = iter(several)
    assert next(_groups(source, lambda _: False)) == several[:1] and len(list(source)) == len(several) - 2
