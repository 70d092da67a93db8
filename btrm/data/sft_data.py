"""Stage `sft_data`: a teacher's judgements become the answers that a student is warmed up on.

Judgements are joined to pairs by label_id, never by row number; every judgement that becomes no row is written to
dropped.jsonl with the reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from pydantic import field_validator

from btrm.config import ConfigError, setting, source
from btrm.progress import progress
from btrm.prompts import PromptSpec, get_prompt
from btrm.records import PreferencePair, read_judgements, read_pairs, stable_hash
from btrm.runs import StageConfig, StageResult, StageRun, replace
from btrm.scores import Outcome, without_tags

_COLUMNS = ("label_id", "pair_id", "side", "sample", "prompt", "completion", "score", "outcome")
Answer = dict[str, Any]


class SftDataConfig(StageConfig):
    """Which of a teacher's judgements a student learns from."""

    judgements: str = source("@teacher/judgements.parquet", "the teacher's judgements")
    pairs: str = source("@pairs/train.pairs.parquet", "the pairs that were judged")
    prompt: str = setting("toy_score100", "the student's prompt; its scale must be that of the teacher's")
    filter_correct: bool = setting(False, "keep only pairs that the teacher orders as the label does")
    min_margin: float | None = setting(None, "keep only pairs whose two scores differ by at least this", ge=0)
    include_both_sides: bool = setting(True, "both sides of a pair; else one, drawn by seed and label_id")
    drop_ties: bool = setting(False, "leave out pairs whose two scores are equal")
    seed: int = setting(0, "seed of the draw of sides")

    @field_validator("prompt")
    @classmethod
    def _known_prompt(cls, value: str) -> str:
        return get_prompt(value) and value


@dataclass(slots=True)
class SftWriter:
    """Writes rows and drops, and counts both."""

    prompt: PromptSpec
    rows: IO[str]
    drops: IO[str]
    counts: Counter[str]

    def keep(self, pair: PreferencePair, answer: Answer) -> None:
        """Write one conversation: the prompt filled in, and the answer with its tag exactly once."""
        reason = without_tags(cast(str, answer["completion"]))
        target = self.prompt.target(answer["score"], reason)
        messages = self.prompt.messages(pair.context, pair.responses[answer["side"]])
        row = {"messages": [*messages, {"role": "assistant", "content": target}], **_key(answer)}
        self.rows.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.counts["rows"] += 1

    def drop(self, answer: Answer, reason: str) -> None:
        """Write down why a judgement became no row."""
        record = {"reason": reason, **{name: answer[name] for name in _COLUMNS}}
        self.drops.write(json.dumps(record, ensure_ascii=False) + "\n")
        self.counts["dropped"] += 1
        self.counts[f"dropped_{reason}"] += 1


def run_sft_data(config: SftDataConfig, run: StageRun) -> StageResult:
    """Write sft.jsonl and dropped.jsonl; return counts, the teacher's accuracy (ties half) and tie rate.

    Raises ConfigError for judgements on another scale, a label_id that names another pair, or when nothing is left.
    """
    answers = _answers(run.input(config.judgements), get_prompt(config.prompt))
    rows, drops = run.scratch("sft.jsonl"), run.scratch("dropped.jsonl")
    counts: Counter[str] = Counter()
    with rows.open("w", encoding="utf-8") as row_file, drops.open("w", encoding="utf-8") as drop_file:
        writer = SftWriter(get_prompt(config.prompt), row_file, drop_file, counts)
        for pair in progress(read_pairs(run.input(config.pairs)), None, "sft_data", "pair"):
            for sides in answers.pop(pair.label_id, {}).values():
                _judged_pair(config, writer, pair, sides)
        for answer in (a for samples in answers.values() for sides in samples.values() for a in sides):
            writer.drop(answer, "no_such_pair")
    if not counts["rows"]:
        reasons = {key: n for key, n in counts.items() if key.startswith("dropped_")}
        raise ConfigError(f"sft_data: no judgement is left to learn from: {reasons or 'none was made'}")
    for path in (rows, drops):
        replace(path, run.dir / path.name)
    return StageResult({rows.name: counts["rows"], drops.name: counts["dropped"]}, _results(counts))


def _answers(path: Path, prompt: PromptSpec) -> dict[str, dict[int, list[Answer]]]:
    """Return {label_id: {sample: judgements by side}}; a side judged twice stands twice, and is refused there."""
    table = read_judgements(path).select(list(_COLUMNS))
    for name in cast("list[str]", table["prompt"].unique().to_pylist()):
        scale = get_prompt(name).scale
        if scale != prompt.scale:
            raise ConfigError(
                f"{path}: judged with {name} on the scale {scale.name}; prompt {prompt.name} has {prompt.scale.name}"
            )
    answers: dict[str, dict[int, list[Answer]]] = {}
    for batch in table.to_batches(max_chunksize=4096):
        for answer in cast("list[Answer]", batch.to_pylist()):
            sides = answers.setdefault(answer["label_id"], {}).setdefault(answer["sample"], [])
            if any(other["side"] == answer["side"] for other in sides):
                raise ConfigError(f"{path}: {_key(answer)} stands twice; give one judge's answers at one seed")
            sides.append(answer)
    return answers


def _judged_pair(config: SftDataConfig, writer: SftWriter, pair: PreferencePair, sides: Sequence[Answer]) -> None:
    """Keep or drop the judgements of one sample of a pair."""
    for answer in sides:
        if answer["pair_id"] != pair.pair_id:
            raise ConfigError(f"label_id {pair.label_id}: judged as pair {answer['pair_id']}, now {pair.pair_id}")
    scores = {a["side"]: cast(float, a["score"]) for a in sides if a["outcome"] == Outcome.SCORED}
    margin = scores[0] - scores[1] if len(scores) == 2 else None
    writer.counts.update(_agreement(pair, margin))
    refused = _refusal(config, pair, margin)
    chosen = _sides(config, pair)
    for answer in sorted(sides, key=lambda a: a["side"]):
        if answer["outcome"] != Outcome.SCORED:
            writer.drop(answer, str(answer["outcome"]))
        elif refused:
            writer.drop(answer, refused)
        elif answer["side"] not in chosen:
            writer.drop(answer, "other_side_drawn")
        else:
            writer.keep(pair, answer)


def _refusal(config: SftDataConfig, pair: PreferencePair, margin: float | None) -> str:
    """Return why a pair's judgements are not to be learnt from, '' where they are."""
    needs_both = config.filter_correct or config.min_margin is not None or config.drop_ties
    if margin is None:
        return "other_side_unscored" if needs_both else ""
    if config.drop_ties and margin == 0:
        return "tie"
    if config.min_margin is not None and abs(margin) < config.min_margin:
        return "small_margin"
    if config.filter_correct and pair.preferred is None:
        return "label_is_tie"
    if config.filter_correct and (margin == 0 or (margin < 0) != bool(pair.preferred)):
        return "wrong"
    return ""


def _agreement(pair: PreferencePair, margin: float | None) -> Iterator[str]:
    """Yield what to count for the teacher's accuracy: a pair without two scores is judged, and not correct."""
    yield "judged"
    if margin == 0:
        yield "ties"
    if pair.preferred is not None:
        yield "labelled"
        if margin == 0:
            yield "half_correct"
        elif margin is not None and (margin < 0) == bool(pair.preferred):
            yield "correct"


def _sides(config: SftDataConfig, pair: PreferencePair) -> tuple[int, ...]:
    if config.include_both_sides:
        return (0, 1)
    return (int(stable_hash(str(config.seed), pair.label_id), 16) & 1,)


def _results(counts: Counter[str]) -> dict[str, Any]:
    judged, labelled = counts["judged"], counts["labelled"]
    correct = counts["correct"] + 0.5 * counts["half_correct"]
    return {
        "rows": counts["rows"],
        "judged_pairs": judged,
        "teacher_accuracy": correct / labelled if labelled else None,
        "teacher_tie_rate": counts["ties"] / judged if judged else None,
        "dropped": {key.removeprefix("dropped_"): n for key, n in counts.items() if key.startswith("dropped_")},
    }


def _key(answer: Answer) -> dict[str, Any]:
    return {name: answer[name] for name in ("pair_id", "label_id", "side", "sample")}
