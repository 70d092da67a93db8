"""A labelled pair as a row of another trainer's data. Each form states whose it is; all are lines of JSON.

- `trl`: TRL's preference form, explicit prompt, conversational (its documentation, "Dataset formats and types").
- `swift-rm`: ms-swift's rows for a reward model (its documentation, "Custom dataset"; as of 4.6): `messages` that end
  in the preferred reply, and `rejected_response` in its place.
- `rewardbench`: the columns of RewardBench (allenai/reward-bench), which its tool reads with --load_json. A prompt is
  text; where any context of the file has several turns, all are lists of messages, since a column has one type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from btrm.data.messages import messages_of
from btrm.prompts import Message
from btrm.records import PreferencePair

Row = dict[str, Any]


def trl_row(prompt: list[Message], pair: PreferencePair) -> Row:
    """Return prompt, chosen and rejected, each a list of messages."""
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in _ranked(pair))
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def swift_rm_row(prompt: list[Message], pair: PreferencePair) -> Row:
    """Return the conversation with the preferred reply, and the other reply."""
    chosen, rejected = _ranked(pair)
    return {"messages": [*prompt, {"role": "assistant", "content": chosen}], "rejected_response": rejected}


def rewardbench_row(prompt: list[Message], pair: PreferencePair) -> Row:
    """Return RewardBench's columns; models and subset are "" where the pair does not say them."""
    chosen, rejected = _ranked(pair)
    named = {key: str(pair.meta.get(key) or "") for key in ("chosen_model", "rejected_model", "subset")}
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **named, "id": pair.label_id}


FORMS: dict[str, Callable[[list[Message], PreferencePair], Row]] = {
    "trl": trl_row,
    "swift-rm": swift_rm_row,
    "rewardbench": rewardbench_row,
}


def unfit(pair: PreferencePair) -> tuple[str, str] | None:
    """Return (reason, detail) why a pair can be no row of another trainer's; None where it can."""
    if pair.preferred is None:
        return "tie", "people preferred neither; these trainers need a preferred response"
    if not all(text.strip() for text in pair.responses):
        return "empty_response", "a response is empty"
    if pair.responses[0] == pair.responses[1]:
        return "identical_responses", "the two responses are equal"
    if messages_of(pair.context)[-1]["role"] == "assistant":
        return "context_ends_in_reply", "the context ends in a reply, which templates join to the one that is compared"
    return None


def plain_prompt(row: Row) -> Row:
    """Return a row whose prompt is the text of its only message."""
    return {**row, "prompt": row["prompt"][0]["content"]}


def _ranked(pair: PreferencePair) -> tuple[str, str]:
    """Return the preferred response and the other."""
    assert pair.preferred is not None
    return pair.responses[pair.preferred], pair.responses[1 - pair.preferred]
