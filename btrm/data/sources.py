"""The preference sets by name, and a user's own by path; pairs are sifted from what could not become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from btrm.config import ConfigError, nearest
from btrm.data.anthropic_hh import HUB as HH_HUB
from btrm.data.anthropic_hh import SPLITS as HH_SPLITS
from btrm.data.anthropic_hh import anthropic_hh
from btrm.data.autoj import autoj
from btrm.data.chosen_rejected import (
    SKYWORK_HUB,
    SKYWORK_SPLITS,
    ULTRAFEEDBACK_HUB,
    ULTRAFEEDBACK_SPLITS,
    skywork_reward,
    trl,
    ultrafeedback_binarized,
)
from btrm.data.detect import resolve
from btrm.data.helpsteer3 import HUB as HELPSTEER3_HUB
from btrm.data.helpsteer3 import SPLITS as HELPSTEER3_SPLITS
from btrm.data.helpsteer3 import helpsteer3
from btrm.data.items import MALFORMED, Dropped, Item, Occurrences, Query
from btrm.data.judgebench import HUB as JUDGEBENCH_HUB
from btrm.data.judgebench import judgebench
from btrm.data.llmbar import llmbar
from btrm.data.mapped import mapped
from btrm.data.pandalm import pandalm
from btrm.data.rewardbench import HUB as REWARDBENCH_HUB
from btrm.data.rewardbench import rewardbench
from btrm.data.rewardbench2 import HUB as REWARDBENCH2_HUB
from btrm.data.rewardbench2 import rewardbench2
from btrm.data.rm_bench import HUB as RM_BENCH_HUB
from btrm.data.rm_bench import rm_bench
from btrm.data.rmb import rmb
from btrm.data.summarize_from_feedback import HUB as SFF_HUB
from btrm.data.summarize_from_feedback import SPLITS as SFF_SPLITS
from btrm.data.summarize_from_feedback import summarize_from_feedback
from btrm.data.toy import toy_items
from btrm.data.written_forms import btrm_pairs, swift_rm
from btrm.hub import HubItem
from btrm.plugins import load_object
from btrm.records import PreferencePair, stable_hash

Adapter = Callable[[Query], Iterator[Item]]


@dataclass(frozen=True, slots=True)
class Source:
    """One preference set. `splits` is empty where the data files' keys say which there are; without files: `hub`."""

    read: Adapter
    splits: tuple[str, ...]
    prompt: str | None
    options: tuple[str, ...] = ()
    hub: HubItem | None = None


_DIALOG = "hh_score100_v1"
SOURCES: dict[str, Source] = {
    "toy": Source(toy_items, ("train", "validation", "test"), "toy_score100"),
    "summarize_from_feedback": Source(summarize_from_feedback, SFF_SPLITS, "score100_v1", ("domain",), SFF_HUB),
    "anthropic_hh": Source(anthropic_hh, HH_SPLITS, "hh_score100_v1", hub=HH_HUB),
    "rewardbench": Source(rewardbench, ("test",), _DIALOG, hub=REWARDBENCH_HUB),
    "rewardbench2": Source(rewardbench2, ("test",), _DIALOG, ("pairs",), REWARDBENCH2_HUB),
    "rm_bench": Source(rm_bench, ("test",), _DIALOG, ("pairs",), RM_BENCH_HUB),
    "rmb": Source(rmb, ("test",), _DIALOG, ("set",)),
    "judgebench": Source(judgebench, ("test",), _DIALOG, ("responses",), JUDGEBENCH_HUB),
    "llmbar": Source(llmbar, (), _DIALOG, ("subset",)),
    "autoj": Source(autoj, (), _DIALOG),
    "pandalm": Source(pandalm, (), _DIALOG, ("labels",)),
    "helpsteer3": Source(helpsteer3, HELPSTEER3_SPLITS, _DIALOG, ("min_strength",), HELPSTEER3_HUB),
    "ultrafeedback_binarized": Source(
        ultrafeedback_binarized, ULTRAFEEDBACK_SPLITS, _DIALOG, ("equal_scores",), ULTRAFEEDBACK_HUB
    ),
    "skywork_reward": Source(skywork_reward, SKYWORK_SPLITS, _DIALOG, hub=SKYWORK_HUB),
    "trl": Source(trl, (), _DIALOG),
    "swift_rm": Source(swift_rm, (), _DIALOG),
    "btrm": Source(btrm_pairs, (), None),
    "mapped": Source(mapped, (), None),
}


def get_source(dataset: str) -> Source:
    """Return a preference set by name or from `FILE.py:function`; raise ConfigError with the nearest valid name.

    A user's function has the signature `function(split: str, limit: int | None, data_files: tuple[Path, ...])` and
    yields PreferencePair (PreferencePair.make derives the ids); every label_id must be unique within a split.
    """
    if dataset in SOURCES:
        return SOURCES[dataset]
    if ".py:" in dataset:
        return Source(_user_adapter(dataset), (), None)
    raise ConfigError(f"dataset {dataset!r}: no such data set{nearest(dataset, SOURCES)} (or FILE.py:function)")


def _user_adapter(reference: str) -> Adapter:
    function = load_object(reference)
    if not callable(function):
        raise ConfigError(f"dataset {reference}: expected a function, found {type(function).__name__}")

    def read(query: Query) -> Iterator[Item]:
        seen = Occurrences()
        pairs = cast("Iterator[Any]", function(query.split, query.limit, query.data_files))
        for index, pair in enumerate(pairs):
            where = f"{reference} item {index}"
            if not isinstance(pair, PreferencePair):
                raise ConfigError(f"{where}: expected a PreferencePair, got {type(pair).__name__}")
            if pair.preferred not in (0, 1, None) or isinstance(pair.preferred, float):
                raise ConfigError(f"{where}: preferred: expected 0, 1 or None, got {pair.preferred!r}")
            if not all(_is_text(text) for text in (pair.context, *pair.responses)):
                raise ConfigError(f"{where}: context and responses: expected valid Unicode text")
            if seen.count(stable_hash(pair.label_id)):
                raise ConfigError(f"{where}: label_id {pair.label_id} stands twice; it must tell labels apart")
            yield pair

    return read


def _is_text(text: Any) -> bool:
    """Say whether this is a str that UTF-8 can write: half of a surrogate pair cannot be."""
    if not isinstance(text, str):
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_query(dataset: str, query: Query) -> Source:
    """Return the source; raise ConfigError for a split or an option that it does not have."""
    source = get_source(dataset)
    problems: list[str] = []
    if query.data_files and source.read is toy_items:
        problems.append(f"dataset {dataset}: is made from a seed and reads no files, got {query.data_files[0]}")
    if source.splits and query.split not in source.splits:
        problems.append(f"dataset {dataset}: no split {query.split!r}; it has {', '.join(source.splits)}")
    for option in query.options:
        if option not in source.options:
            valid = nearest(option, source.options) if source.options else "; it takes none"
            problems.append(f"dataset {dataset}: no option {option!r}{valid}")
    if query.columns and dataset != "mapped":
        problems.append(f"dataset {dataset}: takes no columns; only mapped does")
    if problems:
        raise ConfigError("\n".join(problems))
    return source


@dataclass(slots=True)
class Sift:
    """Lets pairs through up to a limit; counts everything else and hands it to `on_drop`."""

    on_error: str = "raise"
    limit: int | None = None
    on_drop: Callable[[Dropped], None] = lambda _: None
    counts: Counter[str] = field(default_factory=Counter[str])

    def pairs(self, items: Iterator[Item]) -> Iterator[PreferencePair]:
        """Yield the pairs; raise ConfigError at a malformed row unless on_error is skip."""
        if self.limit == 0:
            return
        for item in items:
            if isinstance(item, Dropped):
                self._drop(item)
                continue
            self._count(item)
            yield item
            if self.counts["pairs"] == self.limit:
                return

    def check_any(self, where: str) -> None:
        """Raise ConfigError where not one pair came through: an empty data set is a mistake in the asking."""
        if not self.counts["pairs"]:
            drops = ", ".join(f"{reason} {n}" for reason, n in self.counts.items() if n) or "no rows at all"
            raise ConfigError(f"{where}: not one pair ({drops})")

    def _drop(self, item: Dropped) -> None:
        if item.reason == MALFORMED and self.on_error != "skip":
            raise ConfigError(f"{item.where}: {item.detail} (on_error=skip leaves such rows out, counted)")
        self.counts[f"dropped_{item.reason}"] += 1
        self.on_drop(item)

    def _count(self, pair: PreferencePair) -> None:
        self.counts["pairs"] += 1
        self.counts["ties"] += pair.preferred is None
        repaired = pair.meta.get("repaired")
        if repaired:
            self.counts[f"repaired_{repaired}"] += 1


def iter_pairs(
    dataset: str,
    split: str,
    *,
    limit: int | None = None,
    data_files: Iterable[str | Path] = (),
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    seed: int = 0,
    label_noise: float = 0.0,
    on_error: str = "raise",
) -> Iterator[PreferencePair]:
    """Yield the pairs of a split, the first `limit` where given; drops are passed over. `auto` looks at the files.

    Raises ConfigError for an unknown data set, split or option, and (on_error raise) for a malformed row.
    """
    files = tuple(Path(file) for file in data_files)
    dataset = resolve(dataset, files)
    query = Query(split, limit, files, columns or {}, options or {}, seed, label_noise)
    source = check_query(dataset, query)
    return Sift(on_error, limit).pairs(source.read(query))
