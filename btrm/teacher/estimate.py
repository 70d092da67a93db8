"""What asking will cost, before anything is sent."""

from __future__ import annotations

import json

from btrm.teacher.base import Call, Usage
from btrm.teacher.config import TeacherConfig
from btrm.teacher.gate import Cost
from btrm.teacher.prices import Price
from btrm.teacher.tokens import tokens_of

_FRAME = 64  # tokens that an API adds to what is written: roles, the form of a tool


def most_of(call: Call, config: TeacherConfig, price: Price | None) -> Cost:
    """Return the largest cost that a call can have: a dense prompt, all of it written to a cache, the longest answer.

    Without a price no dollars are reserved.
    """
    prompt, answer = most_prompt(call), most_answer(call, config)
    if price is None:
        return Cost(prompt + answer)
    dearest = max(
        price.usd(Usage(input=prompt), config.mode),
        price.usd(Usage(cache_written=prompt), config.mode),
    )
    return Cost(prompt + answer, dearest + price.usd(Usage(output=answer), config.mode))


def most_prompt(call: Call) -> int:
    """Return about the most tokens that a call's prompt can have."""
    schema = json.dumps(call.schema) if call.schema else ""
    return tokens_of(call.system) + tokens_of(call.context) + tokens_of(call.question) + tokens_of(schema) + _FRAME


def bound_of(call: Call, config: TeacherConfig) -> int:
    """Return tokens that a call cannot exceed, told quickly: `tokens_of` counts no more than the bytes of a text."""
    texts = (call.system, call.context, call.question, json.dumps(call.schema) if call.schema else "")
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) + _FRAME + most_answer(call, config)


def most_answer(call: Call, config: TeacherConfig) -> int:
    """Return how many tokens a call's answer may have, thinking included."""
    return config.max_tokens * len(call.items) + config.thinking_room
