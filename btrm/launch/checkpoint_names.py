"""Checkpoints as people type them: `checkpoint-*`, `base,sft`, a path, or LABEL=REFERENCE."""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from btrm.checkpoints import checkpoints
from btrm.config import ConfigError
from btrm.hub import is_hub_name
from btrm.runs import RunPaths, read_manifest


@dataclass(frozen=True, slots=True)
class Names:
    """What a bare word may mean: a name that the experiment knows, or a checkpoint of one of the run's trainers."""

    run: RunPaths
    known: Mapping[str, str]
    trainers: Sequence[str]

    def references(self, text: str) -> dict[str, str]:
        """Return {label: reference} of a comma list; raise ConfigError for all that is nothing, with what there is."""
        found: dict[str, str] = {}
        problems: list[str] = []
        for word in filter(None, (part.strip() for part in text.split(","))):
            label, equals, reference = word.partition("=")
            try:
                label, reference = (label, reference) if equals else self._meant(word, found)
                if found.setdefault(label, reference) != reference:
                    raise ConfigError(f"two are called {label!r}; name one: --checkpoints NAME={reference}")
            except ConfigError as error:
                problems.append(f"--checkpoints {word}: {error}")
        if not found and not problems:
            problems = [f"--checkpoints: nothing is named; {self._there()}"]
        if problems:
            raise ConfigError("\n".join(problems))
        return found

    def _meant(self, word: str, found: Mapping[str, str]) -> tuple[str, str]:
        if word in self.known:
            return word, self.known[word]
        if owners := [name for name in self.trainers if self._matches(name, word)]:
            if len(owners) > 1:
                raise ConfigError(f"{' and '.join(owners)} have such; take @{owners[0]}/checkpoints/{word}")
            return self._of_trainer(owners[0], word, found)
        if "/" in word or word.startswith(("@", "~", ".")) or Path(word).is_dir():
            return self._path(word)
        raise ConfigError(f"no such checkpoint; {self._there()}")

    def _of_trainer(self, trainer: str, word: str, found: Mapping[str, str]) -> tuple[str, str]:
        reference = f"@{trainer}/checkpoints/{word}"
        if not glob.has_magic(word):
            return word, reference
        named = next((label for label, known in self.known.items() if known == reference), trainer)
        labels = (named, *(f"{named}-{number}" for number in range(2, 1000)))  # a glob's folders keep their own names
        return next(label for label in labels if found.get(label, reference) == reference), reference

    def _path(self, word: str) -> tuple[str, str]:
        path = Path(word).expanduser()
        named = word.startswith("@") or (is_hub_name(word) and not path.exists())
        if not named and not glob.has_magic(word) and not path.exists():
            raise ConfigError(f"no such folder; {self._there()}")
        reference = word if named else str(path.absolute())
        label = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(reference).name).strip("-._") or "checkpoint"
        return label, reference

    def _matches(self, trainer: str, word: str) -> bool:
        """Say whether a trainer has such a checkpoint; one that is not complete has those that it may yet leave."""
        if "/" in word or word.startswith("@"):
            return False
        there = checkpoints(self.run.stage(trainer) / "checkpoints")
        if any(fnmatch.fnmatchcase(path.name, word) for path in there):
            return True
        to_come = read_manifest(self.run.stage(trainer)) is None
        return to_come and word.startswith("checkpoint-") and trainer == self.trainers[0]

    def _there(self) -> str:
        """Say what can be named."""
        there = [path.name for name in self.trainers for path in checkpoints(self.run.stage(name) / "checkpoints")]
        shown = ", ".join(there) if len(there) < 13 else f"{', '.join(there[:6])}, …, {', '.join(there[-6:])}"
        names = f"by name: {', '.join(self.known)}" if self.known else ""
        return "; ".join(filter(None, [f"the run has: {shown or 'none yet'}", names, "or NAME=PATH, or a path"]))
