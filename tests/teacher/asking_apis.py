"""Asking the test server through the real SDKs, as tests do it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from api_server import Server

from btrm.teacher.asking import open_backend
from btrm.teacher.base import Call, Item, Reply, TeacherError
from btrm.teacher.config import TeacherConfig

APIS = ("anthropic", "gemini", "openai")
MARK = "ab12cd34"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"analysis": {"type": "string"}, "score": {"type": "integer", "minimum": 0, "maximum": 100}},
    "required": ["analysis", "score"],
    "additionalProperties": False,
}


def call_of(form: str = "tags", context: str = "A context.\n\n", seed: int = 7) -> Call:
    """Return a call about one response."""
    item = Item("label", "pair", 0, MARK)
    question = f'<response id="{MARK}">\nYes.\n</response id="{MARK}">\n\nGrade the response {MARK}.'
    schema = SCHEMA if form == "schema" else None
    return Call((item,), 0, "pointwise", "schema" if schema else "tags", "You grade.", context, question, schema, seed)


def config_of(api: str, server: Server, **fields: Any) -> TeacherConfig:
    """Return a config that asks the server."""
    url = server.url + ("/v1" if api == "openai" else "")
    return TeacherConfig(backend=api, **{"model": "test-model", "base_url": url, "timeout_s": 5.0, **fields})


def ask(config: TeacherConfig, *calls: Call) -> Reply:
    """Ask one call after the other; return the last reply."""
    replies = ask_each(config, calls)
    if isinstance(replies[-1], TeacherError):
        raise replies[-1]
    return replies[-1]


def ask_each(config: TeacherConfig, calls: Iterable[Call]) -> list[Reply | TeacherError]:
    """Ask one call after the other through one client; return what came of each."""

    async def asked() -> list[Reply | TeacherError]:
        backend = open_backend(config, None)  # type: ignore[arg-type]
        results: list[Reply | TeacherError] = []
        for call in calls:
            try:
                results.append(await backend.ask(call))
            except TeacherError as error:
                results.append(error)
        await backend.close()
        return results

    return asyncio.run(asked())
