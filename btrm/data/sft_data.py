"""Stage `sft_data`: teachers' judgements become the answers that a student is warmed up on.

Judgements are joined to pairs by label_id, else by pair_id, never by row number; every judgement that becomes no row is
written to dropped.jsonl with the reason, once for each label that it was joined to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import field_validator

from btrm.config import ConfigError, setting, source
from btrm.data.answers import Answers, Samples, names_of, read_answers
from btrm.data.merge import Merge, Verdict, verdicts
from btrm.data.sft_writer import SftWriter
from btrm.data.teacher_page import page
from btrm.data.teacher_summary import Tally
from btrm.progress import progress
from btrm.prompts import get_prompt
from btrm.publishing import replace
from btrm.records import PreferencePair, read_pairs, stable_hash
from btrm.runs import StageConfig, StageResult, StageRun

_PAGE = "teacher.md"
_JUDGEMENTS = "judgements.parquet"


class SftDataConfig(StageConfig):
    """Which of the teachers' judgements a student learns from."""

    judgements: str | tuple[str, ...] = source(
        "@teacher/judgements.parquet", "a teacher's judgements, or several teachers', separated by commas"
    )
    pairs: str = source("@pairs/train.pairs.parquet", "the pairs that were judged")
    prompt: str = setting("toy_score100", "the student's prompt; its scale must be that of the teachers'")
    merge: Merge = setting(
        "none",
        "all samples of all teachers: each answer a row; the mean score with the rationale nearest to it; or each "
        "sample votes for a side, and the majority's median scores count",
    )
    filter_correct: bool = setting(False, "keep only pairs that the teacher orders as the label does")
    min_margin: float | None = setting(None, "keep only pairs whose two scores differ by at least this", ge=0)
    include_both_sides: bool = setting(True, "both sides of a pair; else one, drawn by seed and label_id")
    drop_ties: bool = setting(False, "leave out pairs whose two scores are equal")
    seed: int = setting(0, "seed of the draw of sides")

    @field_validator("prompt")
    @classmethod
    def _known_prompt(cls, value: str) -> str:
        return get_prompt(value) and value

    @field_validator("judgements")
    @classmethod
    def _each_once(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, str):
            return _judgements_of(value)
        files = tuple(map(_judgements_of, value))
        if not files or len(set(files)) < len(files):
            raise ValueError("expected one or more judgements.parquet, each once")
        return files[0] if len(files) == 1 else files

    @property
    def sources(self) -> tuple[str, ...]:
        """The judgements' references, one a teacher."""
        return (self.judgements,) if isinstance(self.judgements, str) else self.judgements

    def by_role(self, *roles: str) -> dict[str, Any]:
        """Leave out `merge` where nothing is merged: what was made before there was any is the same run."""
        return {name: value for name, value in super().by_role(*roles).items() if (name, value) != ("merge", "none")}


def _judgements_of(reference: str) -> str:
    """Return the file that a reference means: a stage, or the directory of one, stands for its judgements.parquet."""
    folder = reference.rstrip("/")
    is_folder = "/" not in folder if folder.startswith("@") else Path(reference).expanduser().is_dir()
    return f"{folder}/{_JUDGEMENTS}" if is_folder else reference


def run_sft_data(config: SftDataConfig, run: StageRun) -> StageResult:
    """Write sft.jsonl, dropped.jsonl and teacher.md; return counts and what the teacher is worth.

    Raises ConfigError for judgements on another scale or of other pairs, a label_id that names another pair, or when
    nothing is left.
    """
    prompt, paths = get_prompt(config.prompt), [run.input(reference) for reference in config.sources]
    answers = read_answers(paths, prompt)
    names = names_of(answers)
    rows, drops = run.scratch("sft.jsonl"), run.scratch("dropped.jsonl")
    tally, counts = Tally(prompt.scale), Counter[str]()
    each = [Tally(prompt.scale) for _ in names] if len(names) > 1 else []
    with rows.open("w", encoding="utf-8") as row_file, drops.open("w", encoding="utf-8") as drop_file:
        _write(config, run, answers, SftWriter(prompt, row_file, drop_file, names, counts), tally, each)
    if not counts["rows"]:
        reasons = {key: n for key, n in counts.items() if key.startswith("dropped_")}
        raise ConfigError(f"sft_data: no judgement is left to learn from: {reasons or 'none was made'}")
    figures, alone = tally.figures(), [mine.figures() for mine in each]
    told = run.scratch(_PAGE)
    told.write_text(page(figures, names, alone, config.merge, prompt.scale, counts), encoding="utf-8")
    for path in (rows, drops, told):
        replace(path, run.dir / path.name)
    dropped = {key.removeprefix("dropped_"): n for key, n in counts.items() if key.startswith("dropped_")}
    told_rows = {name: counts[name] for name in ("rows", "without_reason", "joined_by_pair")}
    results = {**told_rows, **figures.to_json(), "dropped": dropped}
    if alone:
        results["judged_by_all"] = counts["judged_by_all"]
        results["teachers"] = [mine.of_teacher(name) for name, mine in zip(names, alone, strict=True)]
    return StageResult({rows.name: counts["rows"], drops.name: counts["dropped"], _PAGE: None}, results)


def _write(
    config: SftDataConfig,
    run: StageRun,
    answers: list[Answers],
    writer: SftWriter,
    tally: Tally,
    each: Sequence[Tally],
) -> None:
    labels, pair_ids = set[str](), set[str]()
    for pair in progress(read_pairs(run.input(config.pairs)), None, "sft_data", "pair"):
        samples: Samples = {key: sides for teacher in answers for key, sides in teacher.of(pair).items()}
        if not samples or pair.label_id in labels:
            continue
        labels.add(pair.label_id)
        pair_ids.add(pair.pair_id)
        said = verdicts(config.merge, samples, writer.prompt.scale)
        tally.add(pair, samples, said)
        for number, mine in enumerate(each):
            if own := {key: sides for key, sides in samples.items() if key[0] == number}:
                mine.add(pair, own, verdicts(config.merge, own, writer.prompt.scale))
        writer.counts["judged_by_all"] += len({teacher for teacher, _ in samples}) == len(answers)
        for verdict in said:
            _judged_pair(config, writer, pair, verdict)
    for answer in (answer for teacher in answers for answer in teacher.unused()):
        writer.drop(answer, "judged_on_another_label" if answer["pair_id"] in pair_ids else "no_such_pair")


def _judged_pair(config: SftDataConfig, writer: SftWriter, pair: PreferencePair, verdict: Verdict) -> None:
    """Keep or drop what one verdict is made of."""
    refused = _refusal(config, pair, verdict.margin)
    chosen = _sides(config, pair)
    for answer, reason in verdict.left_out:
        writer.drop(answer, reason)
    for number, side in enumerate(verdict.sides):
        if side is None:
            continue
        if reason := refused or ("" if number in chosen else "other_side_drawn"):
            for answer in side.behind:
                writer.drop(answer, reason)
        else:
            writer.keep(pair, side, verdict.teacher)


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


def _sides(config: SftDataConfig, pair: PreferencePair) -> tuple[int, ...]:
    if config.include_both_sides:
        return (0, 1)
    return (int(stable_hash(str(config.seed), pair.label_id), 16) & 1,)
