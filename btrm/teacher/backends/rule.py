"""A teacher that needs no model: it answers what a rule says, in the form that the call asks for."""

from __future__ import annotations

import random

from btrm.judges.base import request_seed
from btrm.judges.rule import RULES
from btrm.prompts import get_prompt
from btrm.runs import StageRun
from btrm.teacher.base import Call, Reply, Usage
from btrm.teacher.config import TeacherConfig


class RuleBackend:
    """Gives each item the score that `rule(response, scale, generator of this sample)` returns."""

    def __init__(self, config: TeacherConfig) -> None:
        self._config = config
        self._rule = RULES[config.backend]
        self._scale = get_prompt(config.prompt).scale

    async def ask(self, call: Call) -> Reply:
        """Answer at once."""
        item = call.items[0]
        seed = request_seed(self._config.seed, item.label_id, item.side, self._config.n_samples) + call.sample
        value = self._rule(call.question, self._scale, random.Random(seed))
        return Reply(self._scale.numeral(value), "stop", Usage(len(call.question.split()), 1))

    async def close(self) -> None:
        """Nothing is held."""


def open_backend(config: TeacherConfig, run: StageRun) -> RuleBackend:
    """Return the backend of a rule."""
    del run
    return RuleBackend(config)
