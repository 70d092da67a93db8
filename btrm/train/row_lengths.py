"""Rows that a trainer can read whole: longer ones are dropped and counted, both sides of a pair together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from btrm.config import ConfigError
from btrm.publishing import replace
from btrm.records import read_jsonl, write_jsonl
from btrm.runs import StageRun

_TEMPLATE_BYTES = 512  # more than any chat template adds to a short conversation, in tokens


def fitting_rows(run: StageRun, reference: str, model: str, max_length: int, group: int) -> tuple[Path, dict[str, int]]:
    """Return the rows file to train on and {rows, too_long}; `group` rows in a row stand or fall together.

    Nothing is truncated. Where all rows fit, the input itself is returned; else `rows.jsonl` in the stage's directory.
    Every attempt reads the rows anew, so none trains on what the input was before.
    """
    source, kept_path = run.input(reference), run.dir / "rows.jsonl"
    tokenizer: list[Any] = []
    counts = {"rows": 0, "too_long": 0}

    def kept() -> Iterator[dict[str, Any]]:
        for rows in _groups((row for _, row in read_jsonl(source)), group):
            fits = all(_fits(row, model, max_length, tokenizer) for row in rows)
            counts["rows" if fits else "too_long"] += len(rows)
            if fits:
                yield from rows

    scratch = run.scratch("rows.jsonl")
    write_jsonl(scratch, kept())
    if not counts["rows"]:
        raise ConfigError(f"{source}: no row of {counts['too_long']} fits max_length={max_length}")
    if not counts["too_long"]:
        kept_path.unlink(missing_ok=True)
        return source, counts
    replace(scratch, kept_path)
    return kept_path, counts


def _fits(row: dict[str, Any], model: str, max_length: int, tokenizer: list[Any]) -> bool:
    """Say whether a conversation has at most `max_length` tokens; a token is a byte or more, so most need no count."""
    messages = row["messages"]
    if sum(len(str(m["content"]).encode()) for m in messages) + _TEMPLATE_BYTES * len(messages) <= max_length:
        return True
    if not tokenizer:
        from transformers import AutoTokenizer

        tokenizer.append(AutoTokenizer.from_pretrained(model))
    answered = messages[-1]["role"] == "assistant"
    ids = tokenizer[0].apply_chat_template(messages, add_generation_prompt=not answered, return_dict=True)["input_ids"]
    return len(ids) <= max_length


def _groups(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while group := list(islice(iterator, size)):
        yield group
