"""`btrm data inspect`: what files of preferences hold, as facts and as a page for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from btrm.config import ConfigError
from btrm.data.asked_files import AskedFiles
from btrm.data.items import Dropped
from btrm.data.reading import count_rows, expand_files
from btrm.data.tally import Lengths, Limits, Tally
from btrm.progress import progress
from btrm.records import PreferencePair

_NAMES = 6  # annotators and subsets that are shown
_BAR = 24
_LABEL = 16


def inspect(asked: AskedFiles, limits: Limits, tokenizer: Path | None = None) -> dict[str, Any]:
    """Read the files once and return what they hold: the stable object of --json."""
    tally = Tally(limits, token_counter(tokenizer) if tokenizer else None)
    rows = count_rows(expand_files(asked.files))
    for item in progress(asked.items(), None, "inspect", "pair"):
        if isinstance(item, Dropped):
            tally.drop(item)
        else:
            tally.add(item)
    return {
        "files": [str(path) for path in asked.files],
        "dataset": asked.dataset,
        "detected": asked.detected,
        "splits": list(asked.splits),
        "rows": rows,
        **tally.facts(),
        "limits": {"characters": limits.characters, "tokens": limits.tokens},
        "examples": [_example(pair) for pair in tally.examples],
    }


def token_counter(folder: Path) -> Lengths:
    """Return a function from texts to their numbers of tokens; raise ConfigError where there is no tokenizer."""
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise ConfigError(f"--tokenizer {folder}: no such folder; expected one with a tokenizer's files")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--tokenizer {folder}: {str(error).partition(chr(10))[0]}") from None
    return lambda texts: [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def _example(pair: PreferencePair) -> dict[str, Any]:
    return {
        "label_id": pair.label_id,
        "context": pair.context,
        "responses": list(pair.responses),
        "preferred": pair.preferred,
        "meta": dict(pair.meta),
    }


def page(facts: Mapping[str, Any], width: int) -> str:
    """Return the facts as text, `width` characters wide."""
    blocks = (_head(facts), _labels(facts), _doubts(facts), _lengths(facts), _left_out(facts), _examples(facts, width))
    return "\n\n".join("\n".join(_fit(line, width) for line in lines) for lines in map(list, blocks) if lines)


def _fit(text: str, width: int) -> str:
    """Break lines that are too long, but never a word or a path; show what a terminal would obey as a sign."""
    text = "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
    wrap = textwrap.TextWrapper(width, subsequent_indent=" " * _LABEL, break_long_words=False, break_on_hyphens=False)
    return "\n".join("\n".join(wrap.wrap(line)) if len(line) > width else line for line in text.split("\n"))


def _head(facts: Mapping[str, Any]) -> Iterator[str]:
    how = "by its columns" if facts["detected"] else "as said"
    repeated = facts["duplicates"]
    yield f"{', '.join(facts['files'])}"
    yield _line("format", f"{facts['dataset']} ({how}), read as {', '.join(facts['splits'])}")
    pairs = f"{facts['labelled_pairs']:,} labelled pairs"
    apart = f"{repeated['distinct_pairs']:,} distinct pairs of {repeated['contexts']:,} contexts"
    yield _line("size", f"{facts['rows']:,} rows, {pairs}; {apart}")


def _labels(facts: Mapping[str, Any]) -> Iterator[str]:
    total = facts["labelled_pairs"]
    for name, count in facts["labels"].items():
        share = count / total if total else 0.0
        what = {"first": "prefers first", "second": "prefers second", "tie": "a tie"}[name]
        yield _line(what, f"{_bar(share)} {count:>9,}  {share:6.1%}")
    wins = facts["longer_wins"]
    if wins["n"]:
        interval = f"[{wins['low']:.1%}, {wins['high']:.1%}] of {wins['n']:,}"
        yield _line("longer wins", f"{_bar(wins['share'])} {'':>9}  {wins['share']:6.1%}  {interval}")
    for kind in ("annotators", "subsets"):
        if facts[kind]:
            yield _line(kind, _named(facts[kind]))


def _doubts(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a reader should know before trusting the labels."""
    repeated, flaws, limits = facts["duplicates"], facts["responses"], facts["limits"]
    yield _line("labelled again", _again(repeated))
    yield _line("asked again", f"{_many(repeated['contexts_with_several_pairs'], 'context')} with more than one pair")
    found = [f"{_many(flaws['empty'], 'pair')} with an empty response", f"{flaws['identical']:,} with equal ones"]
    found.append(f"{flaws['over_long']:,} with one over {limits['characters']:,} characters")
    if facts["tokens"]:
        found.append(f"{facts['tokens']['over_long']:,} over {limits['tokens']:,} tokens with their context")
    yield _line("responses", "; ".join(found))


def _again(repeated: Mapping[str, int]) -> str:
    if not repeated["pairs_with_several_labels"]:
        return "no pair"
    unlike = f"{repeated['differing_pairs']:,} of them not alike, {repeated['contradicted_pairs']:,} both ways"
    return f"{_many(repeated['pairs_with_several_labels'], 'pair')}, {unlike}"


def _lengths(facts: Mapping[str, Any]) -> Iterator[str]:
    tables = [(unit, facts[unit]) for unit in ("characters", "tokens") if facts[unit]]
    for unit, parts in tables:
        rows = [(name, found) for name, found in parts.items() if isinstance(found, Mapping)]
        if rows:
            yield _line(unit, "".join(f"{name:>9}" for name in rows[0][1]))
        for name, found in rows:
            yield _line(f"  {name}", "".join(f"{value:>9,.0f}" for value in found.values()))


def _left_out(facts: Mapping[str, Any]) -> Iterator[str]:
    if not facts["dropped"]:
        yield _line("left out", "nothing")
    for reason, found in facts["dropped"].items():
        yield _line("left out", f"{found['rows']:,} {reason}")
        yield from (f"{'':<{_LABEL}}{place}" for place in found["first"])


def _examples(facts: Mapping[str, Any], width: int) -> Iterator[str]:
    for example in facts["examples"]:
        said = {0: "the first", 1: "the second", None: "neither"}[example["preferred"]]
        yield f"--- {example['label_id']}: {said} is preferred"
        yield _line("context", _short(example["context"], width, from_end=True))
        for name, response in zip(("first", "second"), example["responses"], strict=True):
            yield _line(name, _short(response, width, from_end=False))


def _line(name: str, text: str) -> str:
    return f"{name:<{_LABEL}}{text}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _bar(share: float) -> str:
    return f"{'█' * round(share * _BAR):<{_BAR}}"


def _named(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:_NAMES]]
    rest = len(counts) - len(shown)
    return f"{len(counts):,}: {', '.join(shown)}{f' and {rest:,} more' if rest else ''}"


def _short(text: str, width: int, *, from_end: bool) -> str:
    """Return two lines of a text: its last, where a conversation asks, or its first."""
    lines = textwrap.wrap(" ".join(text.split()), max(width - _LABEL - 2, 20)) or ["(empty)"]
    if len(lines) > 2:
        lines = [f"… {lines[-2]}", lines[-1]] if from_end else [lines[0], f"{lines[1]} …"]
    return f"\n{'':<{_LABEL}}".join(lines)
