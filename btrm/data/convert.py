"""`btrm data convert`: the pairs of files in another form, published whole, with what was left out beside them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import orjson

from btrm.config import ConfigError
from btrm.data.asked_files import AskedFiles
from btrm.data.forms import FORMS, plain_prompt, unfit
from btrm.data.items import Dropped
from btrm.data.messages import messages_of
from btrm.data.reading import BUFFER, expand_files
from btrm.data.rows import RowEncoder
from btrm.progress import progress
from btrm.prompts import PromptSpec
from btrm.publishing import replace
from btrm.records import PreferencePair, write_pairs

BTRM = "btrm"
TARGETS = (*FORMS, BTRM)
_ENDINGS = {BTRM: ".pairs.parquet"}


@dataclass(frozen=True, slots=True)
class Conversion:
    """One call, checked. `rows` is where btrm's pointwise rows go, with `prompt`; None for none."""

    asked: AskedFiles
    target: str
    out: Path
    force: bool
    prompt: PromptSpec | None = None

    @property
    def dropped(self) -> Path:
        """Where what was left out is written."""
        return self.out.with_name(f"{self.out.name}.dropped.jsonl")

    @property
    def rows(self) -> Path:
        """Where pointwise rows go, where there is a prompt for them."""
        return self.out.with_name(f"{self.out.name.removesuffix('.parquet').removesuffix('.pairs')}.rows.jsonl")

    def outputs(self) -> tuple[Path, ...]:
        """Return all files that the conversion writes, the main one last."""
        return (self.dropped, *((self.rows,) if self.prompt else ()), self.out)


def default_out(file: Path, target: str) -> Path:
    """Return where the pairs of a file go by default: into this directory, under its name and the form's."""
    return Path(f"{file.resolve().name.split('.')[0]}{_ENDINGS.get(target, f'.{target}.jsonl')}")


def convert(plan: Conversion) -> Counter[str]:
    """Write the pairs; return the counts: `rows` and, by reason, what was left out.

    Everything is published by renames at the end. Raises ConfigError for an output that is there (without force), a
    malformed row (on_error raise) and where nothing is left; then nothing is written.
    """
    _check(plan)
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in plan.outputs()}
    try:
        counts = _write(plan, parts)
        if not counts["rows"]:
            left = ", ".join(f"{reason} {n}" for reason, n in counts.items() if reason != "rows") or "no rows at all"
            raise ConfigError(f"{', '.join(map(str, plan.asked.files))}: not one pair for {plan.target} ({left})")
        for path, part in parts.items():
            replace(part, path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return counts


def _check(plan: Conversion) -> None:
    problems: list[str] = []
    ending = ".parquet" if plan.target == BTRM else ".jsonl"
    if not plan.out.name.endswith(ending):
        problems.append(f"--out {plan.out}: --to {plan.target} writes a file that ends in {ending}")
    if plan.prompt is not None and plan.target != BTRM:
        problems.append(f"--prompt: is for --to {BTRM}, whose rows ask for a score; {plan.target} has none")
    there = [path for path in plan.outputs() if path.exists()]
    if there and not plan.force:
        problems.append(f"{', '.join(map(str, there))}: exists (--force overwrites)")
    read = expand_files(plan.asked.files)  # a folder holds what an earlier call wrote there
    problems += [f"--out {path}: is what is read" for path in there if any(map(path.samefile, read))]
    if problems:
        raise ConfigError("\n".join(problems))


def _write(plan: Conversion, parts: dict[Path, Path]) -> Counter[str]:
    with ExitStack() as stack:
        drops = stack.enter_context(parts[plan.dropped].open("wb", buffering=BUFFER))
        sorter = _Sorter(plan.asked, drops)
        if plan.target != BTRM:
            return _write_form(plan.target, sorter, parts[plan.out])
        pairs = sorter.pairs()
        if plan.prompt is not None:
            rows = stack.enter_context(parts[plan.rows].open("wb", buffering=BUFFER))
            pairs = _with_rows(pairs, RowEncoder(plan.prompt), rows)
        sorter.counts["rows"] = write_pairs(parts[plan.out], pairs)
    return sorter.counts


@dataclass(slots=True)
class _Sorter:
    """Reads the files and writes down what is left out, with its reason."""

    asked: AskedFiles
    drops: IO[bytes]
    counts: Counter[str] = field(default_factory=Counter[str])

    def pairs(self) -> Iterator[PreferencePair]:
        """Yield all labelled pairs, ties too."""
        for item in progress(self.asked.items(), None, "convert", "pair"):
            if isinstance(item, Dropped):
                self.drop(item)
            else:
                yield item

    def drop(self, item: Dropped) -> None:
        """Count what is left out and write it down."""
        self.counts[item.reason] += 1
        self.drops.write(orjson.dumps(item.to_json(), default=str) + b"\n")

    def fit_pairs(self) -> Iterator[PreferencePair]:
        """Yield the pairs that other trainers can learn from."""
        for pair in self.pairs():
            if (why := unfit(pair)) is None:
                yield pair
            else:
                row = {"context": pair.context, "responses": pair.responses, "meta": dict(pair.meta)}
                self.drop(Dropped(pair.label_id, why[0], why[1], row))


def _write_form(target: str, sorter: _Sorter, path: Path) -> Counter[str]:
    """Write the rows of another trainer, prompts as messages; as texts where RewardBench's columns allow it."""
    single = True
    with path.open("wb", buffering=BUFFER) as file:
        for pair in sorter.fit_pairs():
            prompt = messages_of(pair.context)
            single = single and [message["role"] for message in prompt] == ["user"]
            sorter.counts["rows"] += 1
            file.write(orjson.dumps(FORMS[target](prompt, pair)) + b"\n")
    if target == "rewardbench" and single:
        _flatten(path)
    return sorter.counts


def _flatten(path: Path) -> None:
    plain = path.with_name(f"{path.name}.plain")
    with path.open("rb", buffering=BUFFER) as rows, plain.open("wb", buffering=BUFFER) as file:
        file.writelines(orjson.dumps(plain_prompt(orjson.loads(line))) + b"\n" for line in rows)
    plain.replace(path)


def _with_rows(pairs: Iterable[PreferencePair], encoder: RowEncoder, rows: IO[bytes]) -> Iterator[PreferencePair]:
    """Pass pairs on while writing their pointwise rows; ties have none."""
    for pair in pairs:
        rows.write(encoder.lines(pair))
        yield pair
