"""Judging while training goes on: round after round over the checkpoints that are whole by now.

Nothing is kept but what rounds leave on disk, so that the watcher may be killed and started again at any time.
"""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from btrm.checkpoints import is_whole
from btrm.config import ConfigError
from btrm.judges.checkpoints import natural_key
from btrm.operate.trainer_state import TrainerState, trainer_state
from btrm.runs import RunPaths, StageError, read_manifest

_LOG = logging.getLogger(__name__)
_LOOKS = 3  # that a trainer must be gone for: between two attempts it is for a moment
_LOOK_S = 2.0
Members = dict[str, str]


@dataclass(slots=True)
class Watch:
    """Rounds over a run's checkpoints. `members` is what was asked for; `judge` does a round, and returns its status.

    A reference below `@TRAINER/checkpoints` stands for the whole checkpoints that there are, by path, until its trainer
    is complete; then it is taken as it was given, so that a later command finds all of it done.
    """

    root: Path
    members: Mapping[str, str]
    judge: Callable[[Members], int]
    interval_s: float
    last: Members = field(default_factory=dict[str, str])

    def run(self) -> int:
        """Watch until every trainer is complete and all is judged, or one has ended before that (1)."""
        told = ""
        while True:
            states = {name: self._state(name) for name in self._trainers()}
            waits = [name for name in self._others() if read_manifest(self.root / name) is None]
            now = {} if waits else self._now(states)
            if now and now != self.last:
                if status := self._round(now):
                    return status
                continue  # more may have come meanwhile
            if all(state.state == "complete" for state in states.values()) and now:
                return 0
            if ended := {name: state.why for name, state in states.items() if state.state == "ended"}:
                return self._give_up(ended)
            words = ", ".join([*waits, *(f"{n} ({s.state})" for n, s in states.items() if s.state != "complete")])
            if words != told:
                _LOG.info("%d judged; waits for %s", len(self.last), words)
                told = words
            time.sleep(self.interval_s)

    def _round(self, now: Members) -> int:
        """Do a round; what was deleted before it could be judged is told and left out of the next."""
        new = [label for label in now if label not in self.last]
        final = dict(now) == dict(self.members)
        _LOG.info("judging %s", "all that training has left" if final else ", ".join(new) or "what is left")
        try:
            status = self.judge(now)
        except (ConfigError, StageError, OSError) as error:
            if not (gone := self._gone(now)):
                raise
            _LOG.warning("%s: deleted before it was judged; left out (%s)", ", ".join(gone), str(error).splitlines()[0])
            return 0
        self.last = now
        return status

    def _gone(self, members: Members) -> list[str]:
        """Return the checkpoints, of those that were named one by one, whose folders are not there any more."""
        folders = {str(self.root / name / "checkpoints") for name in self._trainers()}
        by_path = {label: Path(ref) for label, ref in members.items()}
        return [label for label, path in by_path.items() if str(path.parent) in folders and not path.is_dir()]

    def _now(self, states: Mapping[str, TrainerState]) -> Members:
        """Return the members of the next round; those that went since the last one are told, and their rows kept."""
        found: Members = {}
        for label, reference in self.members.items():
            trainer = _trainer(reference)
            if trainer is None or states[trainer].state == "complete":
                found[label] = reference
                continue
            path = RunPaths(self.root).resolve(reference)
            assert path is not None
            folders = RunPaths(self.root).matches(reference) if glob.has_magic(reference) else [path]
            whole = [folder for folder in folders if folder.is_dir() and is_whole(folder)]
            named = {folder.name if glob.has_magic(reference) else label: str(folder) for folder in whole}
            found |= {name: named[name] for name in sorted(named, key=natural_key)}
        if gone := [label for label in self._gone(self.last) if label not in found]:
            _LOG.warning("%s: judged, and deleted since; out of the table, its answers stay", ", ".join(gone))
        return found

    def _state(self, name: str) -> TrainerState:
        """Return how a trainer stands; it has ended where several looks say so."""
        state = trainer_state(self.root, name)
        for _ in range(_LOOKS - 1):
            if state.state != "ended":
                break
            time.sleep(_LOOK_S)
            state = trainer_state(self.root, name)
        return state

    def _give_up(self, ended: Mapping[str, str]) -> int:
        for name, why in ended.items():
            _LOG.error("%s is not complete, and nobody is at work on it: %s", name, why)
        _LOG.error("what it left is judged (%d); the same command goes on when it trains again", len(self.last))
        return 1

    def _trainers(self) -> list[str]:
        return list(dict.fromkeys(name for ref in self.members.values() if (name := _trainer(ref))))

    def _others(self) -> list[str]:
        """Return the stages besides trainers that members are made by."""
        at = [ref for ref in self.members.values() if ref.startswith("@") and _trainer(ref) is None]
        return list(dict.fromkeys(ref[1:].partition("/")[0] for ref in at))


def _trainer(reference: str) -> str | None:
    name, _, rest = reference.partition("/")
    return name[1:] if name.startswith("@") and rest.partition("/")[0] == "checkpoints" else None
