"""A teacher's answers as they are read from judgements.parquet, by label and sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from btrm.config import ConfigError
from btrm.prompts import PromptSpec, get_prompt
from btrm.records import read_judgements

COLUMNS = ("label_id", "pair_id", "side", "sample", "judge", "prompt", "completion", "score", "outcome")
Answer = dict[str, Any]
Sample = tuple[int, int]  # which teacher, and which of its samples
Answers = dict[str, dict[Sample, list[Answer]]]


def read_answers(paths: Sequence[Path], prompt: PromptSpec) -> Answers:
    """Return {label_id: {(teacher, sample): answers by side}} of all teachers, a file each.

    Raises ConfigError for another scale than the prompt's, and for a side that is judged twice by one teacher's sample.
    """
    answers: Answers = {}
    for teacher, path in enumerate(paths):
        _read(path, teacher, prompt, answers)
    return answers


def _read(path: Path, teacher: int, prompt: PromptSpec, answers: Answers) -> None:
    table = read_judgements(path).select(list(COLUMNS))
    for name in cast("list[str]", table["prompt"].unique().to_pylist()):
        scale = get_prompt(name).scale
        if scale != prompt.scale:
            raise ConfigError(
                f"{path}: judged with {name} on the scale {scale.name}; prompt {prompt.name} has {prompt.scale.name}"
            )
    for batch in table.to_batches(max_chunksize=4096):
        for answer in cast("list[Answer]", batch.to_pylist()):
            sides = answers.setdefault(answer["label_id"], {}).setdefault((teacher, answer["sample"]), [])
            if any(other["side"] == answer["side"] for other in sides):
                raise ConfigError(f"{path}: {key_of(answer)} stands twice; give one judge's answers at one seed")
            sides.append(answer)


def key_of(answer: Answer) -> dict[str, Any]:
    """Return what names a judgement."""
    return {name: answer[name] for name in ("pair_id", "label_id", "side", "sample")}


def teachers(paths: Sequence[Path], answers: Answers) -> list[str]:
    """Return a name for each file: its judge, numbered where two files have the same.

    Raises ConfigError for a file without a label in common with any other: nothing could be merged.
    """
    names: dict[int, str] = {}
    labels: list[set[str]] = [set() for _ in paths]
    for label, samples in answers.items():
        for (teacher, _), sides in samples.items():
            labels[teacher].add(label)
            names.setdefault(teacher, sides[0]["judge"])
    for teacher, path in enumerate(paths):
        others = [other for place, other in enumerate(labels) if place != teacher]
        if others and labels[teacher].isdisjoint(set[str]().union(*others)):
            rest = ", ".join(str(other) for other in paths if other != path)
            raise ConfigError(f"{path}: judges none of the pairs that {rest} judges; give teachers of the same pairs")
    judges = [names.get(teacher, "") for teacher in range(len(paths))]
    return [
        f"{judge} #{judges[: place + 1].count(judge)}" if judges.count(judge) > 1 else judge
        for place, judge in enumerate(judges)
    ]
