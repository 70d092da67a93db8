"""A teacher that needs no model: it answers what a rule says, in the form that the call asks for."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from btrm.judges.base import request_seed
from btrm.judges.rule import RULES
from btrm.prompts import get_prompt
from btrm.runs import StageRun
from btrm.teacher.base import Call, Item, Reply, Usage
from btrm.teacher.config import TeacherConfig
from btrm.teacher.forms import heading, marked_score


class RuleBackend:
    """Gives each item the score that `rule(response, scale, generator of this sample)` returns, as the judge does."""

    def __init__(self, config: TeacherConfig) -> None:
        self._seed, self._n_samples = config.seed, config.n_samples
        self._rule = RULES[config.backend]
        self._scale = get_prompt(config.prompt).scale

    async def ask(self, call: Call) -> Reply:
        """Answer at once."""
        numerals = [
            self._numeral(item, response, call.sample)
            for item, response in zip(call.items, call.responses, strict=True)
        ]
        text = _written(call, numerals)
        words = [len(part.split()) for part in (call.system, call.context, call.question, text)]
        return Reply(text, "stop", Usage(sum(words[:-1]), words[-1]))

    def _numeral(self, item: Item, response: str, sample: int) -> str:
        seed = request_seed(self._seed, item.label_id, item.side, self._n_samples) + sample
        return self._scale.numeral(self._rule(response, self._scale, random.Random(seed)))

    async def close(self) -> None:
        """Nothing is held."""


def _written(call: Call, numerals: Sequence[str]) -> str:
    """Return the answer with these scores, without reasons, in the call's layout and form."""
    marks = [item.mark for item in call.items]
    if call.form == "schema":
        verdicts = [{"analysis": "", "score": json.loads(numeral)} for numeral in numerals]
        if call.layout == "pointwise":
            return json.dumps(verdicts[0])
        return json.dumps({"items": [{"id": mark, **one} for mark, one in zip(marks, verdicts, strict=True)]})
    tags = [marked_score(mark, numeral) for mark, numeral in zip(marks, numerals, strict=True)]
    if call.layout == "pointwise":
        return tags[0]
    return "\n".join(f"{heading(mark)}\n{tag}" for mark, tag in zip(marks, tags, strict=True))


def open_backend(config: TeacherConfig, run: StageRun) -> RuleBackend:
    """Return the backend of a rule."""
    del run
    return RuleBackend(config)
