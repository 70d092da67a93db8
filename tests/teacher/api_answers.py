"""What the test server answers: a score for each mark that the question names, in the form that is asked for."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

Json = dict[str, Any]
# The question stands last: whatever responses say before it, it names the marks.
_QUESTION = re.compile(r"Grade the responses? ([0-9A-Za-z_-]{4,64}(?:, [0-9A-Za-z_-]{4,64})*)[,.:]")

Rule = Callable[[str, str], int]  # (prompt, mark) -> score


def by_mark(prompt: str, mark: str) -> int:
    """A score in [0, 100] that depends on nothing but the mark (on the prompt where there is none)."""
    return zlib.crc32((mark or prompt).encode()) % 101


def digest_of(text: str) -> str:
    """Return a short digest."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def marks_in(prompt: str) -> list[str]:
    """Return the marks that a prompt names, in their order, each once."""
    asked = _QUESTION.findall(prompt)
    return asked[-1].split(", ") if asked else []


def response_of(prompt: str, mark: str) -> str:
    """Return the response that a prompt shows under a mark: for rules that grade what is said."""
    start, end = f'<response id="{mark}">\n', f'\n</response id="{mark}">'
    return prompt.split(start, 1)[1].split(end, 1)[0]


def tokens_of(text: str) -> int:
    """Count tokens, four characters each."""
    return (len(text) + 3) // 4


def answer_text(rule: Rule, prompt: str, schema: Json | None) -> str:
    """Return the answer that the rule gives, as JSON by the schema, or in the form of tags."""
    marks = marks_in(prompt)
    if schema is not None:
        return json.dumps(_filled(schema, "", marks, marks[0] if marks else "", rule, prompt))
    if not marks:
        return str(rule(prompt, ""))
    parts = [f"=== {mark} ===\nIt answers.\n" if len(marks) > 1 else "It answers.\n" for mark in marks]
    scores = [f'<score id="{mark}">{rule(prompt, mark)}</score>\n' for mark in marks]
    return "".join(part + score for part, score in zip(parts, scores, strict=True))


def _filled(schema: Json, name: str, marks: Sequence[str], mark: str, rule: Rule, prompt: str) -> Any:
    """Return a value that a schema allows: an element for each mark in arrays, its score for numbers."""
    kind = schema.get("type")
    if kind == "object":
        return {key: _filled(value, key, marks, mark, rule, prompt) for key, value in schema["properties"].items()}
    if kind == "array":
        return [_filled(schema["items"], name, marks, each, rule, prompt) for each in marks or [mark]]
    if kind in {"integer", "number"}:
        low, high = schema.get("minimum", 0), schema.get("maximum", 100)
        return low + rule(prompt, mark) % (high - low + 1)
    if "enum" in schema:
        return schema["enum"][0]
    return mark if name in {"id", "mark", "item", "name", "response"} else "It answers."
