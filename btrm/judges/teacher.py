"""The `teacher` stage: pairs in, a teacher's judgements out, in the form that its student should learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import field_validator

from btrm.config import ConfigError, extent, nearest, runtime, setting, source
from btrm.judges.ask import Asking
from btrm.judges.base import MAX_SAMPLES, Sampling
from btrm.judges.cells import Cell
from btrm.judges.numbered import Pairs, read_labels, read_numbered
from btrm.judges.rebuild import rebuild
from btrm.judges.rule import RULES, RuleJudge
from btrm.progress import progress
from btrm.prompts import get_prompt
from btrm.runs import StageConfig, StageResult, StageRun
from btrm.work import Unit

PARTS = "parts"
# A rule draws nothing token by token; the fields only say so in the request's hash.
_RULE_SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=0)


class TeacherConfig(StageConfig):
    """Whom to ask about which pairs, and with which prompt the student will be asked."""

    pairs: str = source("@pairs/train.pairs.parquet", "the pairs to judge")
    backend: str = setting("rule_random", "who answers: " + ", ".join(RULES))
    prompt: str = setting("toy_score100", "the student's prompt, which the answers are written for")
    n_pairs: int | None = extent(None, "how many pairs to judge (none: all)", ge=1)
    skip_pairs: int = setting(0, "leave out this many pairs at the start", ge=0)
    n_samples: int = setting(1, "answers a side", ge=1, le=MAX_SAMPLES)
    seed: int = setting(0, "seed of the answers")
    part_pairs: int = runtime(20_000, "pairs a part; what is done survives a kill part by part", ge=1)

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, value: str) -> str:
        if value not in RULES:
            raise ValueError(f"no such teacher{nearest(value, RULES)}")
        return value

    @field_validator("prompt")
    @classmethod
    def _known_prompt(cls, value: str) -> str:
        return get_prompt(value) and value


def work_teacher(config: TeacherConfig, run: StageRun) -> list[Unit]:
    """Return the pairs that are not judged yet, numbered after skip_pairs, as one unit."""
    return _pairs(config, run).missing_units(run.dir / PARTS, [_cell(config)])


def share_teacher(config: TeacherConfig, run: StageRun, units: Sequence[Unit]) -> Iterator[int]:
    """Judge these pairs where they are still missing; yield the number of pairs after each commit."""
    cell, pairs = _cell(config), _pairs(config, run)
    todo = pairs.still_missing(run.dir / PARTS, [cell], units)
    records = read_numbered(run.input(config.pairs), units, config.skip_pairs)
    judge = RuleJudge(RULES[config.backend], cell.prompt)
    yield from Asking(run, run.dir / PARTS, pairs, records, config.part_pairs).ask(judge, todo)


def run_teacher(config: TeacherConfig, run: StageRun) -> StageResult:
    """Judge the pairs that are not judged yet and rebuild judgements.parquet.

    Raises ConfigError where skip_pairs leaves nothing.
    """
    commits = share_teacher(config, run, work_teacher(config, run))
    asked = sum(progress(commits, None, "teacher", "part"))
    pairs = _pairs(config, run)
    rows = rebuild(run, run.dir / PARTS, [_cell(config)], pairs)
    return StageResult({"judgements.parquet": rows, PARTS: None}, {"pairs": pairs.wanted, "asked_now": asked})


def _pairs(config: TeacherConfig, run: StageRun) -> Pairs:
    path = run.input(config.pairs)
    labels = read_labels(path, config.skip_pairs)
    if not labels:
        raise ConfigError(f"{path}: no pairs left after skip_pairs={config.skip_pairs}")
    return Pairs(labels, min(config.n_pairs or len(labels), len(labels)))


def _cell(config: TeacherConfig) -> Cell:
    prompt = get_prompt(config.prompt)
    backend = config.backend
    return Cell("part", backend, backend, None, prompt, _RULE_SAMPLING, config.n_samples, config.seed)
