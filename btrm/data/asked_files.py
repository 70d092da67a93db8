"""What a `btrm data` command is asked to read: files, the data set that they hold, and its pairs and drops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from btrm.config import ConfigError
from btrm.data.detect import AUTO, detect
from btrm.data.items import MALFORMED, Dropped, Item, Query
from btrm.data.reading import expand_files
from btrm.data.sources import check_query, get_source
from btrm.data.summarize_from_feedback import SOURCE as SFF
from btrm.data.summarize_from_feedback import UNKNOWN_SPLIT

_USUAL_SPLITS = ("train", "validation", "test")  # of sets whose files say theirs by name alone


@dataclass(frozen=True, slots=True)
class AskedFiles:
    """Files and how to read them. `dataset` is a name, never auto; `splits` are those that are read, in turn."""

    files: tuple[Path, ...]
    dataset: str
    detected: bool
    splits: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    on_error: str = "raise"

    @classmethod
    def build(
        cls,
        files: tuple[Path, ...],
        dataset: str,
        split: str | None,
        columns: Mapping[str, str],
        options: Mapping[str, str],
        on_error: str,
    ) -> AskedFiles:
        """Find the data set where it is `auto`; raise ConfigError for what cannot be read so."""
        found = detect(expand_files(files)) if dataset == AUTO else dataset
        splits = (split,) if split else _splits(found, files)
        asked = cls(files, found, dataset == AUTO, splits, columns, options, on_error)
        for name in splits:
            check_query(found, asked.query(name))
        return asked

    def query(self, split: str) -> Query:
        """Return what to ask of the source for a split."""
        return Query(split, None, self.files, self.columns, self.options)

    def items(self) -> Iterator[Item]:
        """Yield pairs and drops; raise ConfigError with file:line for a malformed row (on_error raise)."""
        source = get_source(self.dataset)
        met: set[str] = set()  # where rows stand that no split claims: each pass meets them again
        for split in self.splits:
            for item in source.read(self.query(split)):
                if isinstance(item, Dropped) and item.reason in (UNKNOWN_SPLIT, MALFORMED):
                    if item.where in met:
                        continue
                    met.add(item.where)
                    self._refuse(item)
                yield item

    def _refuse(self, item: Dropped) -> None:
        if item.reason == MALFORMED and self.on_error != "skip":
            hint = "--on-error skip leaves such rows out, counted"
            raise ConfigError(f"{item.where}: {item.detail} ({hint})")


def _splits(dataset: str, files: tuple[Path, ...]) -> tuple[str, ...]:
    """Return the splits to read: all where rows say theirs, else the one that a file's name says, else one."""
    splits = get_source(dataset).splits
    if dataset == SFF:
        return splits
    named = [split for split in splits or _USUAL_SPLITS if any(split in path.name for path in files)]
    return tuple(named[:1] or splits[-1:] or ("test",))
