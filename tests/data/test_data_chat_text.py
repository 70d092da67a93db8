"""Messages become the text that HH's conversations have."""

from __future__ import annotations

from typing import Any

import pytest

from btrm.data.chat_text import ChatError, Turn, chat_text, read_chat


def _message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_a_conversation_reads_as_hh_does() -> None:
    turns = read_chat([_message("user", "Hi "), _message("assistant", "Hello."), _message("user", "Bye")])
    assert chat_text(turns) == "Human: Hi\n\nAssistant: Hello.\n\nHuman: Bye"


def test_a_bare_text_is_a_human_turn() -> None:
    assert read_chat(" What is 2 + 2? ") == (Turn("Human", "What is 2 + 2?"),)
    assert chat_text(read_chat(" ")) == ""


def test_only_an_empty_system_turn_is_left_out() -> None:
    turns = read_chat([_message("system", None), _message("user", "Hi"), _message("assistant", "")])
    assert chat_text(turns) == "Human: Hi\n\nAssistant:"
    assert chat_text(read_chat([_message("system", "Be brief.")])) == "System: Be brief."


def test_other_spellings_of_messages() -> None:
    assert read_chat([{"from": "gpt", "value": "Yes."}]) == (Turn("Assistant", "Yes."),)
    assert read_chat([_message("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]) == (
        Turn("Human", "a\nb"),
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "expected text or a list of messages, got None"),
        (["Hi"], "message 1: expected an object"),
        ([{"role": "user", "content": "Hi"}, {"role": "usr", "content": "x"}], "message 2: no such role 'usr'"),
        ([{"role": "user", "text": "Hi"}], "message 1: no content; keys are role, text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "message 1: content: expected text"),
    ],
)
def test_what_is_no_conversation_is_named(value: Any, said: str) -> None:
    with pytest.raises(ChatError, match="^" + said):
        read_chat(value)
