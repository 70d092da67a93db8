"""Who is asked, through which gate and at what price, as the config says."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable

from btrm.records import stable_hash
from btrm.runs import StageRun
from btrm.teacher.base import Backend, Call
from btrm.teacher.caching import cacheable
from btrm.teacher.chain import Chain
from btrm.teacher.config import APIS, TeacherConfig
from btrm.teacher.drive import Asker
from btrm.teacher.estimate import bound_of, most_of
from btrm.teacher.gate import Gate, OpenGate
from btrm.teacher.journal import Journal
from btrm.teacher.prices import check_price, price_of
from btrm.teacher.shared_gate import SharedGate
from btrm.teacher.spending import spent_by_journal
from btrm.teacher.tally import Limits, check_size

GATE = ".gate"
_ROOM = "btrm.teacher.backends"
_ENGINE_AT_ONCE = 2048  # twice the largest batch that vLLM takes by itself, so that the next are there already


async def open_asker(config: TeacherConfig, run: StageRun, journal: Journal) -> Asker:
    """Return an asker; its backend has its key, and its gate stands.

    Raises ConfigError for a budget that nobody can hold.
    """
    check_price(config)
    price, own_engine = price_of(config), config.backend == "vllm"
    return Asker(
        backend=open_backend(config, run),
        gate=await open_gate(config, run, journal),
        journal=journal,
        concurrency=max(config.concurrency, _ENGINE_AT_ONCE) if own_engine else config.concurrency,
        max_attempts=config.max_attempts,
        timeout_s=math.inf if own_engine else config.timeout_s,  # an engine of this process takes its time
        most=lambda call: most_of(call, config, price),
        usd=lambda usage: price.usd(usage, config.mode) if price else None,
        request_hash=lambda call: request_hash(config, call),
        led=lambda call: cacheable(config, call),
    )


def open_backend(config: TeacherConfig, run: StageRun) -> Backend:
    """Return who is asked. Each backend's module has `open_backend(config, run)`."""
    name = config.backend if config.backend in (*APIS, "vllm") else "rule"
    return importlib.import_module(f"{_ROOM}.{name}").open_backend(config, run)


def check_calls(config: TeacherConfig, calls: Iterable[Call]) -> None:
    """Raise ConfigError, before anything is sent, for a call that alone is more than a minute allows."""
    if config.tpm is None or config.mode != "direct":
        return
    for call in calls:
        if bound_of(call, config) > config.tpm:  # counting by kind of character takes longer than making the call
            check_size(Limits(tpm=config.tpm), most_of(call, config, None))


async def open_gate(config: TeacherConfig, run: StageRun, journal: Journal) -> Gate:
    """Return the gate that a share's calls go through: all shards' one where an API is asked."""
    if config.backend not in APIS:
        return OpenGate()
    limits = Limits(config.rpm, config.tpm, config.budget_usd)
    spent = spent_by_journal(journal.path.parent) if limits.budget_usd else {}
    return await SharedGate(Chain(run.dir / GATE), journal.path.name, limits, config.timeout_s).open(spent)


# What changes a request beside its text.
_SAMPLING = ("backend", "model", "temperature", "top_p", "max_tokens", "thinking_budget")


def request_hash(config: TeacherConfig, call: Call) -> str:
    """Return the digest of a request: who is asked what, and how the answer is drawn."""
    return stable_hash(repr([getattr(config, name) for name in _SAMPLING]), str(call.seed), call.text_hash, length=32)
