"""The `teacher` stage: pairs in, a teacher's judgements out, in the form that its student should learn."""

from __future__ import annotations

from itertools import islice

from pydantic import field_validator

from btrm.config import ConfigError, extent, nearest, runtime, setting, source
from btrm.judges.ask import Cell, ask_missing, rebuild
from btrm.judges.base import MAX_SAMPLES, Sampling
from btrm.judges.rule import RULES, RuleJudge
from btrm.progress import progress
from btrm.prompts import get_prompt
from btrm.records import read_pairs
from btrm.runs import StageConfig, StageResult, StageRun

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


def run_teacher(config: TeacherConfig, run: StageRun) -> StageResult:
    """Judge the pairs that are not judged yet and rebuild judgements.parquet.

    Raises ConfigError where skip_pairs leaves nothing.
    """
    path = run.input(config.pairs)
    limit = None if config.n_pairs is None else config.skip_pairs + config.n_pairs
    pairs = list(islice(read_pairs(path, limit), config.skip_pairs, None))
    if not pairs:
        raise ConfigError(f"{path}: no pairs left after skip_pairs={config.skip_pairs}")
    prompt = get_prompt(config.prompt)
    judge = RuleJudge(RULES[config.backend], prompt)
    cell = Cell("part", config.backend, config.backend, None, prompt, _RULE_SAMPLING, config.n_samples, config.seed)
    parts = run.dir / "parts"
    asked = sum(progress(ask_missing(run, parts, cell, judge, pairs, config.part_pairs), None, "teacher", "part"))
    rows = rebuild(run, parts, [cell], pairs)
    return StageResult({"judgements.parquet": rows, "parts": None}, {"pairs": len(pairs), "asked_now": asked})
