"""A teacher's prompt filled in: one call of each layout and form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from btrm.records import PreferencePair
from btrm.teacher.base import Call
from btrm.teacher.config import TeacherConfig
from btrm.teacher.layouts import make_calls
from btrm.teacher.teacher_prompts import get_teacher_prompt

LAYOUTS: dict[str, dict[str, Any]] = {
    "pointwise": {},
    "batched": {"batch_size": 2},
    "pairwise": {"layout": "pairwise"},
}


def shown_calls(
    teacher_prompt: str, pairs: Sequence[PreferencePair], scale: str = "score100", layout: str | None = None
) -> Iterator[tuple[str, Call]]:
    """Yield (layout and form, the first call about these pairs), of all layouts or one.

    Raises ConfigError for a prompt that there is not.
    """
    student = f"{scale}_v1"
    get_teacher_prompt(teacher_prompt, student)
    numbered = dict(enumerate(pairs))
    keys = [(pair.label_id, side, 0) for pair in pairs for side in (0, 1)]
    chosen = LAYOUTS if layout is None else {layout: LAYOUTS[layout]}
    for (name, fields), form in product(chosen.items(), ("tags", "schema")):
        config = TeacherConfig(teacher_prompt=teacher_prompt, prompt=student, structured=form, **fields)
        yield f"{name}, {form}", next(make_calls(config, numbered, keys))


def parts(call: Call) -> list[tuple[str, str]]:
    """Return (role, text) of what a call sends."""
    schema = [] if call.schema is None else [("schema", json.dumps(call.schema, indent=2))]
    return [("system", call.system), ("user", call.context + call.question), *schema]
