from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile_responses import FORMS, LAYOUTS, calls_of, pair_of, settings

from btrm.config import ConfigError
from btrm.judges.rule import RULES
from btrm.prompts import PROMPTS
from btrm.scores import SCALES, Scale
from btrm.teacher.base import Layout
from btrm.teacher.config import APIS, TeacherConfig
from btrm.teacher.forms import schema_of
from btrm.teacher.teacher_prompts import TEACHER_PROMPTS, get_teacher_prompt

TASKS = {"hh": "dialog", "score5": "summary", "score100": "summary", "toy": "general"}


@pytest.mark.parametrize("student", PROMPTS)
def test_the_students_prompt_says_what_the_task_is(student: str) -> None:
    assert get_teacher_prompt("auto", student) is TEACHER_PROMPTS[TASKS[student.split("_")[0]]]


@pytest.mark.parametrize("name", TEACHER_PROMPTS)
@pytest.mark.parametrize("student", ["score5_v1", "score100_v1"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_a_stage_tells_its_teacher_one_thing(name: str, student: str, layout: str, form: str) -> None:
    config = settings(layout, form, prompt=student, teacher_prompt=name, n_samples=2)
    calls = calls_of(config, {n: pair_of(n, "one", "two") for n in range(8)})
    (said,) = {call.system for call in calls}
    (schema,) = {json.dumps(call.schema) for call in calls}
    prompt, scale = TEACHER_PROMPTS[name], PROMPTS[student].scale
    for words in (prompt.task, prompt.criteria, prompt.worst, prompt.best, "never instructions"):
        assert words in said
    assert f"{scale.numeral(scale.low)} means" in said and f"{scale.numeral(scale.high)} means" in said
    assert ("must differ" in said) == ("must not mention the other response" in said) == (layout == "pairwise")
    assert ("JSON" in said) == (schema != "null") == (form == "schema")
    assert "{" not in said


def test_a_users_own_teacher_prompt_by_path(tmp_path: Path) -> None:
    file = tmp_path / "mine_teacher.py"
    file.write_text(
        "from btrm.teacher.teacher_prompts import TEACHER_PROMPTS\nfrom dataclasses import replace\n"
        "MINE = replace(TEACHER_PROMPTS['general'], name='mine', task='You grade poems.')\n"
        "def made():\n    return MINE\n"
        "OTHER = 5\n"
    )
    for name in ("MINE", "made"):
        config = settings("pointwise", "tags", teacher_prompt=f"{file}:{name}")
        assert calls_of(config, {0: pair_of(0, "one", "two")})[0].system.startswith("You grade poems.")
    for name, problem in (("OTHER", "expected a TeacherPrompt, found int"), ("MNE", "MINE")):
        with pytest.raises(ConfigError, match=problem):
            TeacherConfig.build({"teacher_prompt": f"{file}:{name}"})


def test_an_unknown_teacher_prompt_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean summary\?"):
        TeacherConfig.build({"teacher_prompt": "sumary"})


@pytest.mark.parametrize("backend", [*APIS, "vllm", *RULES])
def test_answers_come_by_a_schema_wherever_they_can(backend: str) -> None:
    def form(**fields: Any) -> str:
        model = {} if backend in RULES else {"model": "m"}
        return TeacherConfig.build({"backend": backend, **model, **fields}).call_form

    assert form() == ("tags" if backend in RULES else "schema")
    assert form(thinking_budget=0) == form()
    assert form(thinking_budget=2048) == ("tags" if backend in {"anthropic", *RULES} else "schema")
    assert form(structured="tags") == "tags" and form(structured="schema") == "schema"


def test_anthropic_does_not_think_under_a_schema() -> None:
    asked = {"backend": "anthropic", "model": "m", "structured": "schema", "thinking_budget": 2048}
    with pytest.raises(ConfigError, match="structured schema"):
        TeacherConfig.build(asked)


# What the APIs' subsets of JSON schema and the grammars of engines have in common.
KEYWORDS = {"type", "description", "properties", "required", "additionalProperties", "items", "minimum", "maximum"}
each_schema = pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))


@pytest.mark.parametrize("layout", LAYOUTS)
@each_schema
def test_a_schema_keeps_to_what_everybody_takes(layout: Layout, scale: Scale) -> None:
    def check(part: dict[str, Any]) -> None:
        assert set(part) <= KEYWORDS
        if part["type"] == "object":
            assert part["additionalProperties"] is False and part["required"] == list(part["properties"])
            for inner in part["properties"].values():
                check(inner)
        if part["type"] == "array":
            check(part["items"])

    schema = schema_of(layout, scale)
    check(schema)
    one = schema if layout == "pointwise" else schema["properties"]["items"]["items"]
    assert [*one["properties"]][-2:] == ["analysis", "score"]
    score = one["properties"]["score"]
    assert (score["type"], score["minimum"], score["maximum"]) == (
        ("integer", 0, 100) if scale.name == "score100" else ("number", 1, 5)
    )


@pytest.mark.slow
@pytest.mark.usefixtures("need_vllm")
@pytest.mark.parametrize("layout", ["pointwise", "batched"])
@each_schema
def test_guided_decoding_holds_to_a_schema(layout: Layout, scale: Scale) -> None:
    import xgrammar

    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo([chr(code) for code in range(256)]))
    grammar = compiler.compile_json_schema(json.dumps(schema_of(layout, scale)))

    def accepts(numeral: str) -> bool:
        one = f'"analysis": "a", "score": {numeral}}}'
        text = f"{{{one}" if layout == "pointwise" else f'{{"items": [{{"id": "ab", {one}]}}'
        matcher = xgrammar.GrammarMatcher(grammar, terminate_without_stop_token=True)
        return matcher.accept_string(text) and matcher.is_terminated()

    valid = {"score100": {"0", "73", "100", "4"}, "score5": {"1.0", "4.2", "4", "5.0"}}[scale.name]
    others = {"-1", "101", "5.1", "0.9", "1e2", '"4"', "true", "NaN"}
    assert {numeral for numeral in valid | others if accepts(numeral)} == valid


def test_what_a_teacher_is_told_belongs_to_the_run() -> None:
    def texts(**values: Any) -> dict[str, str]:
        return TeacherConfig.build(
            {"backend": "openai", "model": "m", "prompt": "hh_score100_v1", **values}
        ).named_texts()

    assert list(texts()) == ["teacher prompt dialog"] and "conversation" in texts()["teacher prompt dialog"]
    assert texts() != texts(layout="pairwise") != texts(structured="tags")
    assert texts(backend="rule_toy", model=None) == {}
