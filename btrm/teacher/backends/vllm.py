"""The `vllm` teacher: an engine in this process, on the job's own GPUs or CPU; no server and no internet.

The engine runs in a thread of its own. A call joins what is being generated at the engine's next step, and is answered
when its own text is done, whatever the others are at.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from itertools import count
from queue import SimpleQueue
from typing import Any

from btrm.judges.base import Sampling
from btrm.judges.engine import EngineSpec
from btrm.judges.vllm import open_llm, vllm_environment
from btrm.runs import StageRun
from btrm.teacher.base import Call, Reply
from btrm.teacher.chat_calls import ChatCalls
from btrm.teacher.config import TeacherConfig

_TEMPERATURE = 0.7
_END_S = 10.0  # a step is over in less; a model that is still being loaded ends with its process


def open_backend(config: TeacherConfig, run: StageRun) -> VllmBackend:
    """Return the backend of a model; nothing is loaded yet."""
    assert config.weights is not None
    return VllmBackend(engine_spec(config, run.model(config.weights)), config.thinking_budget or 0)


def engine_spec(config: TeacherConfig, model: str) -> EngineSpec:
    """Return the engine that a teacher needs; `max_new_tokens` is what one answer about one response may take."""
    temperature = _TEMPERATURE if config.temperature is None else config.temperature
    return EngineSpec(
        model=model,
        adapter_rank=0,
        sampling=Sampling(temperature, config.top_p or 1.0, 0, config.max_tokens),
        dtype=config.dtype,
        max_length=config.max_length,
        batch_size=None,
        kv_cache_mb=config.kv_cache_mb,
        gpu_memory_utilization=config.gpu_memory_utilization,
        tensor_parallel=config.tensor_parallel,
    )


class _Asked:
    """A call on its way into the engine's thread, and its reply's way back into the loop that waits for it."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.prompt_tokens = 0
        self._loop = asyncio.get_running_loop()
        self.reply: asyncio.Future[Reply] = self._loop.create_future()

    def answer(self, reply: Reply) -> None:
        """Wake who waits, from another thread."""
        self._loop.call_soon_threadsafe(lambda: self.reply.done() or self.reply.set_result(reply))

    def fail(self, error: BaseException) -> None:
        """Raise in who waits, from another thread."""
        self._loop.call_soon_threadsafe(lambda: self.reply.done() or self.reply.set_exception(error))


class VllmBackend:
    """Starts its engine with the first call: where all is answered already, no model is loaded."""

    def __init__(self, spec: EngineSpec, thinking_tokens: int) -> None:
        self._spec = spec
        self._thinking_tokens = thinking_tokens
        self._inbox: SimpleQueue[_Asked | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    async def ask(self, call: Call) -> Reply:
        """Return the reply. Raises what ended the engine."""
        asked = _Asked(call)
        self._inbox.put(asked)
        if self._error is not None:  # looked at after the put: the thread looks into the inbox after it has set it
            raise self._error
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="vllm", daemon=True)
            self._thread.start()
        return await asked.reply

    async def close(self) -> None:
        """Drop what is being generated, and give the memory back."""
        if self._thread is not None:
            self._inbox.put(None)
            await asyncio.to_thread(self._thread.join, _END_S)

    def _serve(self) -> None:
        """Run the engine: all of it in this thread, since a GPU and the threads of a CPU belong to one."""
        waiting: dict[str, _Asked] = {}
        try:
            with open_llm(self._spec) as (chat, llm), vllm_environment():
                calls = ChatCalls(chat, self._spec.sampling, self._thinking_tokens)
                _generate(calls, llm.llm_engine, self._inbox, waiting)
                llm.llm_engine.abort_request(list(waiting))
        except BaseException as error:  # it is told by who waits for an answer
            self._error = error
            for asked in (*waiting.values(), *_received(self._inbox)):
                if asked is not None:
                    asked.fail(error)


def _generate(calls: ChatCalls, engine: Any, inbox: SimpleQueue[_Asked | None], waiting: dict[str, _Asked]) -> None:
    """Step the engine while it has requests, wait for some where it has none; return when the inbox says so."""
    numbers = count()
    while True:
        for asked in [inbox.get()] if not waiting else _received(inbox):
            if asked is None:
                return
            prompt = calls.prompt(asked.call)
            asked.prompt_tokens = len(prompt)
            if not calls.fits(prompt, asked.call):
                asked.answer(Reply("", "prompt_too_long"))
                continue
            name = str(next(numbers))
            waiting[name] = asked
            engine.add_request(name, {"type": "token", "prompt_token_ids": prompt}, calls.parameters(asked.call))
        for output in engine.step() if waiting else ():
            if output.finished:
                asked = waiting.pop(output.request_id)
                asked.answer(calls.reply(output.outputs[0].token_ids, asked.prompt_tokens, output.num_cached_tokens))


def _received(inbox: SimpleQueue[_Asked | None]) -> Iterator[_Asked | None]:
    """Yield what lies in an inbox that only the caller empties."""
    while not inbox.empty():
        yield inbox.get()
