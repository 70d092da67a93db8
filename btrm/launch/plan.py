"""Experiments: functions that return a whole plan, the steps in order, each a stage with its config."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from btrm.config import Config, ConfigError, flat_fields, nearest, published_name, read_env_file
from btrm.plugins import load_object, shipped
from btrm.prompts import get_prompt
from btrm.runs import Resources, RunPaths, StageConfig, read_manifest
from btrm.stage_inputs import references
from btrm.stage_table import STAGES, get_stage

DEFAULT_EXPERIMENT = "hh.baseline"
_DERIVED = frozenset({"EVAL_PARSER", "EXTRA_ARGS"})
_OWN_JOBS = ("control", "patrol")


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a plan. `name` is its directory in the run, and the stage's own name unless one runs twice.

    `shards`: how many elements of a job array share its work on a cluster (None: as the stage has it).
    """

    stage: str
    config: StageConfig
    resources: Resources | None = None
    name: str = ""
    shards: int | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for a name that is no folder of the run, or one of btrm's own jobs."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.key) or self.key in _OWN_JOBS:
            raise ConfigError(
                f"step {self.key!r}: a name has letters, digits, _ and -, begins with one of the first two, "
                f"and is not {' or '.join(_OWN_JOBS)}"
            )

    @property
    def key(self) -> str:
        """The step's name."""
        return self.name or self.stage

    @property
    def needs(self) -> Resources:
        """The step's resources, the stage's usual ones where it does not say."""
        return self.resources or get_stage(self.stage).resources


@dataclass(frozen=True, slots=True)
class Experiment:
    """A whole study: steps in an order in which each finds its inputs."""

    name: str
    summary: str
    steps: tuple[Step, ...]

    def step(self, name: str) -> Step:
        """Return a step by name; raise ConfigError with the nearest valid one."""
        for step in self.steps:
            if step.key == name:
                return step
        raise ConfigError(f"{self.name} has no step {name!r}{nearest(name, [s.key for s in self.steps])}")

    def override(self, assignments: Iterable[str]) -> Experiment:
        """Apply `STEP.field=value`, and published names (BT_DELTA_TEMP=20) to every step that has them."""
        changed = {step.key: step for step in self.steps}
        problems: list[str] = []
        for assignment in assignments:
            name = assignment.partition("=")[0]
            head, _, rest = assignment.partition(".")
            try:
                if head in changed and "." in name:
                    step = changed[head]
                    changed[head] = replace(step, config=step.config.override([rest]))
                    continue
                targets = [s for s in changed.values() if name in published_names(type(s.config))]
                # The published trainer is GRPO's: its LEARNING_RATE is not the warm-up's.
                targets = [s for s in targets if s.stage == "grpo"] or targets
                if not targets:
                    valid = [*(f"{s.key}.{f}" for s in self.steps for f in flat_fields(type(s.config)))]
                    raise ConfigError(f"--set {name}: no such STEP.field or published name{nearest(name, valid)}")
                for step in targets:
                    changed[step.key] = replace(step, config=step.config.override([assignment]))
            except ConfigError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))
        return replace(self, steps=tuple(changed[step.key] for step in self.steps))

    def problems(self, paths: RunPaths) -> list[str]:
        """Return the inputs that neither an earlier step nor the run's directory provides, a line each."""
        made: set[str] = set()
        problems: list[str] = []
        for step in self.steps:
            for _, reference in references(step.config):
                stage = reference[1:].partition("/")[0] if reference.startswith("@") else None
                if stage and stage not in made and read_manifest(paths.stage(stage)) is None:
                    problems.append(f"{step.key}: {reference}: no earlier step makes it")
            made.add(step.key)
        return problems


def published_names(config: type[Config]) -> dict[str, str]:
    """Return {published name: field} of a config class."""
    return {alias: path for path, info in flat_fields(config).items() if (alias := published_name(info))}


def preset_assignments(values: Mapping[str, str], where: str) -> list[str]:
    """Turn a published preset into assignments; raise ConfigError for a name that no stage publishes.

    EVAL_PARSER follows from EVAL_PROMPT and is only checked. EXTRA_ARGS holds trainer flags: those that a GRPO field
    publishes or is named like go there, the rest to `--swift`.
    """
    known = {name for stage in STAGES.values() for name in published_names(stage.config)} | {*_DERIVED}
    problems = [f"{where}: {n}: no such published name{nearest(n, known)}" for n in values if n not in known]
    parser, prompt = values.get("EVAL_PARSER"), values.get("EVAL_PROMPT")
    derived = get_prompt(prompt).parser.name if prompt else None
    if parser is not None and parser != derived:
        problems.append(f"{where}: EVAL_PARSER={parser}: EVAL_PROMPT={prompt} is read by {derived}")
    if problems:
        raise ConfigError("\n".join(problems))
    given = [f"{name}={value}" for name, value in values.items() if name not in _DERIVED]
    return given + _extra_args(values.get("EXTRA_ARGS", ""), where)


def _extra_args(text: str, where: str) -> list[str]:
    words = shlex.split(text)
    if len(words) % 2 or not all(flag.startswith("--") for flag in words[::2]):
        raise ConfigError(f"{where}: EXTRA_ARGS: expected --flag value pairs, got {text!r}")
    grpo = get_stage("grpo").config
    fields, aliases = flat_fields(grpo), published_names(grpo)
    names = [flag.removeprefix("--") for flag in words[::2]]
    targets = [name if name in fields else aliases.get(name, f"swift.{name}") for name in names]
    return [f"grpo.{target}={value}" for target, value in zip(targets, words[1::2], strict=True)]


def read_preset(path: Path) -> list[str]:
    """Return a preset file's assignments."""
    if not path.is_file():
        raise ConfigError(f"--preset {path}: no such file")
    return preset_assignments(read_env_file(path), str(path))


def experiment_table() -> dict[str, Callable[[], Experiment]]:
    """Return {FILE.KEY: function} of the experiments that ship; each file lists its own in EXPERIMENTS."""
    table: dict[str, Callable[[], Experiment]] = {}
    for path in sorted(shipped("experiments").glob("*.py")):
        for key, function in load_object(f"{path}:EXPERIMENTS").items():
            table[f"{path.stem}.{key}"] = function
    return table


def get_experiment(name: str) -> Experiment:
    """Return an experiment by name (`toy.demo`, or `demo` where one file alone has it) or by `FILE.py:function`."""
    if ".py:" in name:
        made = load_object(name)()
        if not isinstance(made, Experiment):
            raise ConfigError(f"experiment {name}: expected an Experiment, got {type(made).__name__}")
        return made
    table = experiment_table()
    matches = [key for key in table if key == name or key.partition(".")[2] == name]
    if len(matches) != 1:
        raise ConfigError(f"experiment {name!r}: no such experiment{nearest(name, table)}")
    return table[matches[0]]()
