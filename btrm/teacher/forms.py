"""The two forms of an answer: JSON by a schema, or sections and score tags that carry the responses' marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from btrm.scores import SCALES, Scale
from btrm.teacher.base import Form, Layout
from btrm.teacher.teacher_prompts import kind_of

# What stands in a tag that only shows the form: an answer that repeats its prompt has given no score by that.
PLACEHOLDER = "..."


def heading(mark: str) -> str:
    """Return the line that a response's section begins with."""
    return f"=== {mark} ==="


def marked_score(mark: str, inside: str) -> str:
    """Return the tag that a response's score stands in."""
    return f'<score id="{mark}">{inside}</score>'


def question_line(layout: Layout, form: Form, marks: Sequence[str]) -> str:
    """Return what a call asks about the responses with these marks; it shows no score."""
    listed = ", ".join(marks)
    if form == "schema":
        return f"Grade the response {listed}." if layout == "pointwise" else f"Grade the responses {listed}, in order."
    if layout == "pointwise":
        return f"Grade the response {listed}: your analysis, then {marked_score(listed, PLACEHOLDER)}"
    sections = [f"{heading(mark)}\n(analysis)\n{marked_score(mark, PLACEHOLDER)}" for mark in marks]
    return f"Grade the responses {listed}, in this form:\n" + "\n".join(sections)


def schema_of(layout: Layout, scale: Scale) -> dict[str, Any]:
    """Return the schema of an answer; the analysis comes first, so that the score follows from it.

    It is the same for all calls of a stage (APIs prepare a schema once): marks are values in it, not names. It keeps to
    what every API's subset of JSON schema has.
    """
    verdict: dict[str, Any] = {
        "analysis": {"type": "string", "description": "strengths and weaknesses, in a few sentences"},
        "score": {
            "type": "integer" if scale is SCALES["score100"] else "number",
            "description": kind_of(scale),
            "minimum": _bound(scale.low),
            "maximum": _bound(scale.high),
        },
    }
    if layout == "pointwise":
        return _object(verdict)
    one = _object({"id": {"type": "string", "description": "the id of the response"}, **verdict})
    return _object({"items": {"type": "array", "description": "one for each response, in order", "items": one}})


def _bound(value: float) -> int:
    assert value.is_integer(), value
    return int(value)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
