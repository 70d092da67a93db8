"""What the missing answers will cost, told before anything is sent: calls, tokens, dollars, time.

Prompts are counted by kind of character (see tokens.py) and put right by the journals where they know better: the ratio
of the tokens that the API has counted to those that its prompts were thought to have. Answers are taken for as long as
those in the journals on average; without any, for a stated guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from btrm.records import PreferencePair
from btrm.teacher.base import Call, RowKey, Usage
from btrm.teacher.caching import kept
from btrm.teacher.config import APIS, TeacherConfig
from btrm.teacher.estimate import most_answer, most_of, most_prompt
from btrm.teacher.journal import Entry
from btrm.teacher.layouts import make_calls
from btrm.teacher.prices import Price
from btrm.teacher.spending import Spending
from btrm.teacher.tokens import typical_tokens

_GUESSED_ANSWER = 200  # tokens about a response: a short analysis and a score
_GUESSED_WAIT_S, _GUESSED_RATE = 1.0, 60.0  # seconds to the first token, tokens a second after it
_LEAST_CACHED = 1024  # tokens; no API caches a shorter prefix
_COMPARED = 200  # answered calls whose prompts are counted again
_BATCHED = ("anthropic", "gemini")


@dataclass(slots=True)
class Measured:
    """What the journals tell: sums over answered calls, and over some of them the tokens that were thought of."""

    spent: Spending = field(default_factory=Spending)
    items: int = 0
    latency_s: float = 0.0
    _prompts: dict[RowKey, int] = field(default_factory=dict[RowKey, int])

    def add(self, entry: Entry) -> None:
        """Take a call that has ended; those without tokens say nothing."""
        if not entry.usage.prompt:
            return
        self.spent.add(entry)
        self.items += len(entry.items)
        self.latency_s += entry.latency_s
        if len(self._prompts) < _COMPARED:
            self._prompts[entry.keys[0]] = entry.usage.prompt

    def ratio(self, config: TeacherConfig, pairs: Mapping[int, PreferencePair]) -> float | None:
        """Return tokens counted by the API over tokens thought of; None where nothing was answered."""
        labels = {key[0] for key in self._prompts}
        records = {number: pair for number, pair in pairs.items() if pair.label_id in labels}
        samples = range(config.n_samples)
        keys = [(pair.label_id, side, sample) for pair in records.values() for side in (0, 1) for sample in samples]
        calls = {call.keys[0]: call for call in make_calls(config, records, keys)}
        found = [(tokens, thought(calls[key])) for key, tokens in self._prompts.items() if key in calls]
        expected = sum(tokens for _, tokens in found)
        return sum(tokens for tokens, _ in found) / expected if expected else None


def thought(call: Call) -> float:
    """Return about how many tokens a prompt has, without knowing its tokenizer."""
    schema = json.dumps(call.schema) if call.schema else ""
    return sum(typical_tokens(text) for text in (call.system, call.context, call.question, schema)) + 16


@dataclass(slots=True)
class Forecast:
    """Sums over the calls that are to be made. `cached` tokens are read from a cache, `written` are put into it."""

    calls: int = 0
    items: int = 0
    prompt: float = 0.0
    cached: float = 0.0
    written: float = 0.0
    most_prompt: int = 0
    most_answer: int = 0
    most_usd: float = 0.0

    @classmethod
    def of(cls, calls: Iterable[Call], config: TeacherConfig, price: Price | None, ratio: float) -> Self:
        """Sum calls up, those of one pair side by side as they are sent."""
        found, before = cls(), ""
        for call in calls:
            found.calls += 1
            found.items += len(call.items)
            tokens = ratio * thought(call)
            found.prompt += tokens
            beginning = kept(config, call) if config.mode == "direct" else ""
            if (shared := ratio * typical_tokens(beginning)) >= _LEAST_CACHED:
                if beginning == before:
                    found.cached += shared
                elif config.backend == "anthropic":
                    found.written += shared
            before = beginning
            found.most_prompt += most_prompt(call)
            found.most_answer += most_answer(call, config)
            found.most_usd += most_of(call, config, price).usd
        return found

    def usd(self, answer: float, price: Price, mode: str) -> float:
        """Return what is expected, in dollars."""
        fresh = self.prompt - self.cached - self.written
        usage = Usage(round(fresh), round(answer), round(self.cached), round(self.written))
        return price.usd(usage, mode)


def forecast(
    config: TeacherConfig, price: Price | None, calls: Iterable[Call], seen: Measured, ratio: float | None
) -> str:
    """Return the estimate for people; nothing is sent, and no key is read."""
    sums = Forecast.of(calls, config, price, ratio or 1.0)
    if not sums.calls:
        return "nothing is missing: no call would be made"
    an_answer = seen.spent.completion_tokens / seen.items if seen.items else None
    guess = min(config.max_tokens, _GUESSED_ANSWER) + config.thinking_room / (2 * sums.items / sums.calls)
    answer = sums.items * (guess if an_answer is None else an_answer)
    lines = [
        f"calls    {sums.calls:,} that ask about {sums.items:,} responses ({config.call_layout}); nothing is sent now",
        f"prompts  {sums.prompt:,.0f} tokens, at most {sums.most_prompt:,} ({_source(ratio, seen)})",
        *_cache_line(config, sums),
        f"answers  {answer:,.0f} tokens, at most {sums.most_answer:,} "
        + (f"(a guess: {guess:.0f} a response)" if an_answer is None else f"(measured: {an_answer:.0f} a response)"),
        *_thinking(config),
        *_money(config, price, sums, answer, seen.spent.usd),
        *_time(config, sums, answer, seen),
    ]
    return "\n".join(lines)


def _source(ratio: float | None, seen: Measured) -> str:
    if ratio is None:
        return "counted by kind of character: within a third, for most texts"
    return f"counted by kind of character, times {ratio:.2f} as in {seen.spent.calls:,} answered calls"


def _cache_line(config: TeacherConfig, sums: Forecast) -> Iterator[str]:
    if config.backend not in APIS:
        return
    if config.mode == "batch":
        yield "cached   not counted on: a batch's calls find each other's prompts by chance"
    elif not sums.cached:
        yield f"cached   none: nothing is asked twice, or what calls share is shorter than {_LEAST_CACHED} tokens"
    else:
        yield f"cached   {sums.cached / sums.prompt:.0%} of the prompts' tokens, from the second call that begins so"


def _thinking(config: TeacherConfig) -> Iterator[str]:
    if config.thinking_room and config.thinking_budget is None:
        yield (
            f"thinking {config.thinking_room:,} tokens a call are kept free for it: {config.model} thinks unasked, "
            "and that is charged as answer; --thinking-budget says how much"
        )


def _money(config: TeacherConfig, price: Price | None, sums: Forecast, answer: float, spent: float) -> Iterator[str]:
    if config.backend not in APIS:
        yield "cost     nothing is paid by the token"
        return
    if price is None:
        yield f"cost     ? : the price of {config.backend} {config.model} is not known; give it with --prices FILE.toml"
        return
    factor = price.batch if config.mode == "batch" else 1.0
    direct, most = sums.usd(answer, price, "direct"), sums.most_usd / factor
    yield f"cost     ${direct:,.2f}, at most ${most:,.2f} (at ${price.input:g} in, ${price.output:g} out a million)"
    if config.backend in _BATCHED:
        batch = sums.usd(answer, price, "batch")
        yield f"         ${batch:,.2f}, at most ${most * price.batch:,.2f} with --mode batch"
    if config.budget_usd is not None:
        left = config.budget_usd - spent
        enough = "enough" if sums.usd(answer, price, config.mode) <= left else "NOT enough"
        yield f"budget   ${config.budget_usd:,.2f}, ${spent:,.2f} of it spent: {enough}"


def _time(config: TeacherConfig, sums: Forecast, answer: float, seen: Measured) -> Iterator[str]:
    if config.mode == "batch":
        yield "time     a batch is answered within 24 hours, mostly sooner"
        return
    if config.backend not in APIS:
        return
    measured = seen.latency_s / seen.spent.calls if seen.spent.calls else None
    latency = measured or _GUESSED_WAIT_S + answer / sums.calls / _GUESSED_RATE
    limits = {f"{config.concurrency} under way at {latency:.1f} s each": sums.calls * latency / config.concurrency}
    if config.rpm:
        limits[f"rpm {config.rpm:,}"] = 60 * sums.calls / config.rpm
    if config.tpm:
        limits[f"tpm {config.tpm:,}"] = 60 * (sums.prompt + answer) / config.tpm
    slowest = max(limits, key=lambda name: limits[name])
    note = "" if measured else "; the latency is a guess"
    yield f"time     {_duration(limits[slowest])} in one shard, held up by {slowest}{note}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
