"""Benchmarks whose prompts have several good and several bad responses: the pairs that these make.

The pairs of one prompt carry what an official score needs to put them together again: `group` (the prompt's name),
`group_size` (how many pairs it has), `chosen_index` and `rejected_index` (which of its responses are compared).
Equal responses make no pair, so official scores leave them out, where the benchmarks' tools count them as not told
apart: 8 of RMB's 8,714 best-of-N comparisons, one of JudgeBench's 620 pairs.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from btrm.config import ConfigError, nearest
from btrm.data.fields import RowError, column, drop, fields, read_each
from btrm.data.items import Item, Occurrences, Query, ordered
from btrm.data.reading import SourceRow

_LOG = logging.getLogger(__name__)
_LISTED = 5  # subsets that a warning names
_OTHER_NAMES = {"mt-bench-medium": "mt-bench-med", "precise instruction following": "precise if"}  # in authors' tables
Crossing = Callable[[int, int], Iterator[tuple[int, int]]]


def crossed(n_chosen: int, n_rejected: int) -> Iterator[tuple[int, int]]:
    """Yield every chosen response with every rejected one."""
    return ((i, j) for i in range(n_chosen) for j in range(n_rejected))


def matched(n_chosen: int, n_rejected: int) -> Iterator[tuple[int, int]]:
    """Yield the fewest pairs in which every response stands: the shorter list is gone through again and again."""
    longer = max(n_chosen, n_rejected) if n_chosen and n_rejected else 0
    return ((k % n_chosen, k % n_rejected) for k in range(longer))


CROSSINGS: dict[str, Crossing] = {"all": crossed, "matched": matched}


def crossing_of(query: Query, source: str, default: str) -> Crossing:
    """Return what the option `pairs` asks for; raise ConfigError for what it cannot be."""
    return CROSSINGS[choice_of(query, source, "pairs", default, CROSSINGS)]


def choice_of(query: Query, source: str, option: str, default: str, valid: Iterable[str]) -> str:
    """Return the value of an option; raise ConfigError for one that is not valid."""
    value = query.options.get(option, default)
    if value not in (names := list(valid)):
        raise ConfigError(f"{source} option {option}={value!r}: no such choice{nearest(value, names)}")
    return value


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt of a benchmark with its good and its bad responses, as they stand in the row."""

    name: str
    subset: str
    context: str
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class Benchmark:
    """Makes pairs of a benchmark's rows, and counts its prompts: `sizes` says how many each subset has as published."""

    name: str
    split: str
    crossing: Crossing
    sizes: Mapping[str, int]
    seen: Occurrences = field(default_factory=Occurrences)
    _names: Counter[str] = field(default_factory=Counter[str])
    _found: Counter[str] = field(default_factory=Counter[str])

    def read(self, rows: Iterable[SourceRow], group_of: Callable[[SourceRow], Group]) -> Iterator[Item]:
        """Yield the pairs and drops of rows; at their end, warn where the benchmark is not whole."""
        yield from read_each(rows, lambda row: self.pairs(row, group_of(row)))
        self.check_whole()

    def pairs(self, row: SourceRow, group: Group) -> list[Item]:
        """Return the pairs of one prompt, and a drop for each response without text and each pair of equal ones."""
        self.count(group.subset)
        if not group.context:
            return [drop(row, "no_prompt", "the prompt is empty")]
        chosen, rejected = _said(group.chosen), _said(group.rejected)
        places = [(list(chosen)[a], list(rejected)[b]) for a, b in self.crossing(len(chosen), len(rejected))]
        equal = [(i, j) for i, j in places if chosen[i] == rejected[j]]
        drops = [drop(row, "identical_responses", f"chosen {i} equals rejected {j}") for i, j in equal]
        shared = {**group.meta, **self._named(group), "group_size": len(places) - len(equal)}
        return [
            *_empty(row, group),
            *drops,
            *(
                self._pair(group.context, chosen[i], rejected[j], {**shared, "chosen_index": i, "rejected_index": j})
                for i, j in places
                if chosen[i] != rejected[j]
            ),
        ]

    def _pair(self, context: str, chosen: str, rejected: str, meta: Mapping[str, Any]) -> Item:
        responses, preferred = ordered(chosen, rejected)
        return self.seen.pair(context, responses, preferred, source=self.name, split=self.split, meta=meta)

    def count(self, subset: str) -> None:
        """Count a prompt of a subset."""
        self._found[subset] += 1

    def check_whole(self) -> None:
        """Warn where subsets have other numbers of prompts than published: an official score is of all of them."""
        short = [
            f"{name} {self._found[name]} of {size}" for name, size in self.sizes.items() if self._found[name] != size
        ]
        if short:
            listed = ", ".join(short[:_LISTED]) + (f", and {len(short) - _LISTED} more" if len(short) > _LISTED else "")
            _LOG.warning("%s: prompts are missing, so official scores are not comparable: %s", self.name, listed)

    def _named(self, group: Group) -> dict[str, str]:
        """Return what every pair of a prompt says of it; a name that stands again gets a number."""
        self._names[group.name] += 1
        again = self._names[group.name]
        name = group.name if again == 1 else f"{group.name}#{again}"
        return {"benchmark": self.name, "subset": group.subset, "group": name}


def _empty(row: SourceRow, group: Group) -> list[Item]:
    both = (("chosen", group.chosen), ("rejected", group.rejected))
    empty = (f"{kind} {i}" for kind, texts in both for i, text in enumerate(texts) if not text.strip())
    return [drop(row, "empty_response", f"{which} is empty") for which in empty]


def _said(texts: tuple[str, ...]) -> dict[int, str]:
    """Return {place: text, stripped} of the responses that say something."""
    return {i: text.strip() for i, text in enumerate(texts) if text.strip()}


def texts(row: SourceRow, name: str) -> tuple[str, ...]:
    """Return a column that is a list of texts; raise RowError for anything else, an empty list too."""
    value = column(row, name)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise RowError(f"{name!r}: expected a list of texts, got {value!r:.80}")
    return tuple(value)


def subset_of(row: SourceRow, valid: Iterable[str], name: str = "subset") -> str:
    """Return the subset that a row names, spelt as in `valid` whatever its case; raise RowError for another one."""
    value = column(row, name)
    known = {subset.casefold(): subset for subset in valid}
    said = str(value).casefold()
    found = known.get(_OTHER_NAMES.get(said, said))
    if found is None:
        raise RowError(f"{name!r}: no such subset {value!r:.80}{nearest(str(value), known.values())}")
    return found


def optional(row: SourceRow, *names: str) -> dict[str, Any]:
    """Return the columns of these names that there are, for the metadata."""
    value = fields(row)
    return {name: value[name] for name in names if value.get(name) is not None}
