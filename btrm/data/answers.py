"""Teachers' answers as they are read from judgements.parquet, by label and sample, and joined to the pairs to learn of.

A pair's label has the judgements of its own label_id; where a teacher has none of these, those that it made on another
label of the same pair, since a teacher never sees a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from btrm.config import ConfigError
from btrm.prompts import PromptSpec, get_prompt
from btrm.records import PreferencePair, read_judgements

COLUMNS = ("label_id", "pair_id", "side", "sample", "judge", "prompt", "completion", "score", "outcome")
Answer = dict[str, Any]
Sample = tuple[int, int]  # which teacher, and which of its samples
Samples = dict[Sample, list[Answer]]


@dataclass(slots=True)
class Answers:
    """One teacher's answers: `labels` by label_id and sample, in the file's order. `teacher` is its number."""

    path: Path
    teacher: int
    labels: dict[str, Samples] = field(default_factory=dict[str, Samples])
    _of_pair: dict[str, str] = field(default_factory=dict[str, str])
    _used: set[str] = field(default_factory=set[str])

    def add(self, answer: Answer) -> None:
        """Take an answer; raise ConfigError where one sample judges a side twice."""
        self._of_pair.setdefault(answer["pair_id"], answer["label_id"])
        sides = self.labels.setdefault(answer["label_id"], {}).setdefault((self.teacher, answer["sample"]), [])
        if any(other["side"] == answer["side"] for other in sides):
            raise ConfigError(f"{self.path}: {key_of(answer)} stands twice; give one judge's answers at one seed")
        sides.append({**answer, "teacher": self.teacher})

    @property
    def pair_ids(self) -> set[str]:
        """The pairs that are judged."""
        return set(self._of_pair)

    @property
    def judge(self) -> str:
        """The judge of the first answer."""
        return next((a["judge"] for samples in self.labels.values() for sides in samples.values() for a in sides), "")

    def of(self, pair: PreferencePair) -> Samples:
        """Return the answers about a pair, under its label_id whichever label they were made on.

        Raises ConfigError where its label_id was judged as another pair.
        """
        label = pair.label_id if pair.label_id in self.labels else self._of_pair.get(pair.pair_id, "")
        samples = self.labels.get(label, {})
        for answer in (answer for sides in samples.values() for answer in sides):
            if answer["pair_id"] != pair.pair_id:
                raise ConfigError(
                    f"{self.path}: label_id {label}: judged as pair {answer['pair_id']}, among the pairs it is "
                    f"{pair.pair_id}"
                )
        self._used.add(label)
        if label == pair.label_id:
            return samples
        return {key: [_lent(answer, pair.label_id) for answer in sides] for key, sides in samples.items()}

    def unused(self) -> Iterator[Answer]:
        """Yield the answers that no pair was given."""
        for label, samples in self.labels.items():
            if label not in self._used:
                yield from (answer for sides in samples.values() for answer in sides)


def _lent(answer: Answer, label_id: str) -> Answer:
    return {**answer, "label_id": label_id, "judged_as": answer["label_id"]}


def read_answers(paths: Sequence[Path], prompt: PromptSpec) -> list[Answers]:
    """Return each teacher's answers, a file each.

    Raises ConfigError for another scale than the prompt's, for a side that is judged twice by one teacher's sample, and
    for a file without a pair in common with any other: nothing could be merged.
    """
    found = [_read(path, teacher, prompt) for teacher, path in enumerate(paths)]
    for mine in found if len(found) > 1 else ():
        others = [other for other in found if other is not mine]
        if all(mine.pair_ids.isdisjoint(other.pair_ids) for other in others):
            rest = ", ".join(str(other.path) for other in others)
            raise ConfigError(
                f"{mine.path}: judges none of the pairs that {rest} judges; give teachers of the same pairs"
            )
    return found


def _read(path: Path, teacher: int, prompt: PromptSpec) -> Answers:
    table = read_judgements(path).select([*COLUMNS, "shown_first"])
    for name in cast("list[str]", table["prompt"].unique().to_pylist()):
        scale = get_prompt(name).scale
        if scale != prompt.scale:
            raise ConfigError(
                f"{path}: judged with {name} on the scale {scale.name}; prompt {prompt.name} has {prompt.scale.name}"
            )
    answers = Answers(path, teacher)
    for batch in table.to_batches(max_chunksize=4096):
        for answer in cast("list[Answer]", batch.to_pylist()):
            answers.add(answer)
    return answers


def key_of(answer: Answer) -> dict[str, Any]:
    """Return what names a judgement."""
    return {name: answer[name] for name in ("pair_id", "label_id", "side", "sample")}


def names_of(teachers: Sequence[Answers]) -> list[str]:
    """Return a name for each teacher: its judge, numbered where two have the same."""
    judges = [answers.judge for answers in teachers]
    return [
        f"{judge} #{judges[: place + 1].count(judge)}" if judges.count(judge) > 1 else judge
        for place, judge in enumerate(judges)
    ]
