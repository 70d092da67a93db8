"""The stages, one dict of them: where each one's config and functions are, and what it is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

from btrm.config import ConfigError, nearest
from btrm.runs import Resources, StageConfig, StageResult, StageRun
from btrm.work import Pool, Unit

_LIGHT = Resources()
_GPU = Resources(gpus=1, cpus=8, mem_gb=64, time_min=24 * 60)


@dataclass(frozen=True, slots=True)
class Stage:
    """One arrow of the path: its config class and function by name (imported when used), and usual resources.

    `frozen_inputs`: a trainer cannot take back what it has learnt, so inputs that grew are an error, not an extension.
    `derived`: made in seconds from what other stages keep, so other settings, or another btrm, make it anew.
    `check_name`: a function like the stage's own that refuses what can be refused before any GPU is asked for.
    `settings_check_name`: another that looks at nothing but settings and resources, before there are any inputs.
    `work_name`, `share_name`: where a stage's work can be cut among the elements of a job array, what is missing as
    units, and the function that does an element's share of them, yielding the rows that each commit made safe.
    `lends`: an element whose share is done takes rows of others' shares; its function is handed the pool of all.
    `halve_name`: a function that halves the batch in a config n times, where that changes no result.
    `estimate_name`: a function that tells, as text, what the missing work will cost, and does none of it.
    `publishes`: outputs that an older btrm may not have written; a complete stage without them is extended by them.
    """

    module: str
    config_name: str
    function_name: str
    summary: str
    resources: Resources = _LIGHT
    frozen_inputs: bool = False
    derived: bool = False
    check_name: str = ""
    settings_check_name: str = ""
    work_name: str = ""
    share_name: str = ""
    lends: bool = False
    halve_name: str = ""
    estimate_name: str = ""
    publishes: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether the elements of a job array can share the work."""
        return bool(self.work_name)

    @property
    def config(self) -> type[StageConfig]:
        """The stage's config class."""
        return cast(type[StageConfig], getattr(importlib.import_module(self.module), self.config_name))

    @property
    def run(self) -> Callable[[StageConfig, StageRun], StageResult]:
        """The stage's function."""
        return getattr(importlib.import_module(self.module), self.function_name)

    def check(self, config: StageConfig, run: StageRun) -> None:
        """Raise ConfigError for what the stage would refuse, without doing its work."""
        if self.check_name:
            getattr(importlib.import_module(self.module), self.check_name)(config, run)

    def check_settings(self, config: StageConfig, run: StageRun) -> None:
        """Raise ConfigError for what the settings and the resources alone tell."""
        if self.settings_check_name:
            getattr(importlib.import_module(self.module), self.settings_check_name)(config, run)

    def work(self, config: StageConfig, run: StageRun) -> list[Unit]:
        """Return what is missing; nothing heavy is imported."""
        return getattr(importlib.import_module(self.module), self.work_name)(config, run)

    def share(self, config: StageConfig, run: StageRun, pool: Pool) -> Iterator[int]:
        """Do an element's share; yield the rows of each commit. Elements run side by side in one directory."""
        mine = (pool.own(), pool) if self.lends else (pool.own(),)
        return getattr(importlib.import_module(self.module), self.share_name)(config, run, *mine)

    def estimate(self, config: StageConfig, run: StageRun) -> str:
        """Return what the missing work will cost, for people. Raises ConfigError for a stage that cannot tell."""
        if not self.estimate_name:
            can = ", ".join(name for name, stage in STAGES.items() if stage.estimate_name)
            raise ConfigError(f"--estimate: this stage costs no money that it knows of; {can} can tell")
        return getattr(importlib.import_module(self.module), self.estimate_name)(config, run)

    def halve(self, config: StageConfig, times: int) -> StageConfig:
        """Return the config with its batch halved so many times."""
        return getattr(importlib.import_module(self.module), self.halve_name)(config, times)


def _model(module: str, config: str, name: str, summary: str) -> Stage:
    return Stage(module, config, f"run_{name}", summary, _GPU, check_name=f"check_{name}")


def _shared(stage: Stage, halve_name: str = "") -> Stage:
    name = stage.function_name.removeprefix("run_")
    return replace(stage, work_name=f"work_{name}", share_name=f"share_{name}", halve_name=halve_name)


def _trainer(module: str, config: str, name: str, summary: str) -> Stage:
    return replace(_model(module, config, name, summary), frozen_inputs=True)


STAGES: dict[str, Stage] = {
    "toy_model": Stage("btrm.train.toy_model", "ToyModelConfig", "run_toy_model", "the tiny model of the toy task"),
    "pairs": Stage("btrm.data.pairs", "PairsConfig", "run_pairs", "preference set -> pairs.parquet and rows.jsonl"),
    "teacher": _shared(
        Stage(
            "btrm.teacher.stage",
            "TeacherConfig",
            "run_teacher",
            "pairs -> a teacher's judgements",
            check_name="check_teacher",
            settings_check_name="check_teacher_settings",
            estimate_name="estimate_teacher",
        )
    ),
    "sft_data": Stage("btrm.data.sft_data", "SftDataConfig", "run_sft_data", "judgements -> sft.jsonl"),
    "sft": _trainer("btrm.train.sft", "SftConfig", "sft", "LoRA warm-up on the teacher's answers"),
    "merge": _model("btrm.train.merge", "MergeConfig", "merge", "adapter + base -> model"),
    "grpo": replace(
        _trainer("btrm.train.grpo", "GrpoConfig", "grpo", "GRPO on a Bradley-Terry reward"),
        settings_check_name="check_grpo_settings",
    ),
    "judge": replace(
        _shared(
            _model("btrm.judges.grid", "JudgeConfig", "judge", "checkpoints x data sets x seeds -> judgements.parquet"),
            "halve_batch",
        ),
        settings_check_name="check_devices",
        publishes=("pairs.parquet",),
        lends=True,
    ),
    "variance": replace(
        _shared(
            _model("btrm.judges.variance", "VarianceConfig", "variance", "prompts x data sets x seeds on one model"),
            "halve_batch",
        ),
        settings_check_name="check_devices",
        publishes=("pairs.parquet",),
        lends=True,
    ),
    "evaluate": Stage(
        "btrm.metrics.evaluate", "EvaluateConfig", "run_evaluate", "judgements -> eval.jsonl", derived=True
    ),
    "summarize": Stage(
        "btrm.report.summary",
        "SummarizeConfig",
        "run_summarize",
        "eval.jsonl -> summary.csv, report.html",
        derived=True,
    ),
}


def get_stage(name: str) -> Stage:
    """Return a stage by name; raise ConfigError with the nearest valid one."""
    if name not in STAGES:
        raise ConfigError(f"stage {name!r}: no such stage{nearest(name, STAGES)}")
    return STAGES[name]
