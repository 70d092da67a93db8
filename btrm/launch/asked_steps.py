"""The steps that a command asks for: an experiment's own, changed by presets, flags and what the run itself tells."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from btrm.config import flat_fields
from btrm.launch.checkpoint_names import Names
from btrm.launch.evaluation import EVAL, EVAL_STEPS, routed
from btrm.launch.flags import assignments
from btrm.launch.plan import Experiment, Step, published_names, read_preset
from btrm.runs import Resources, RunPaths, read_manifest
from btrm.stage_table import STAGES, get_stage

_LOG = logging.getLogger(__name__)
PIPELINE = "pipeline"
_OF_PROMPT = frozenset({"teacher", "sft_data"})


def asked_steps(command: str, experiment: Experiment, root: Path, args: argparse.Namespace) -> Experiment:
    """Return an experiment cut to what a command asks for (a stage, eval, or pipeline), with all flags applied."""
    if command == PIPELINE:
        steps = experiment.steps
    elif command == EVAL:
        given = routed([*args.set, *assignments(args)])
        steps = tuple(_one_step(step, experiment, root, args, given[step]) for step in EVAL_STEPS)
    else:
        steps = (_one_step(command, experiment, root, args, [*args.set, *assignments(args)]),)
    chosen = replace(experiment, steps=_with_resources(steps, args))
    if command != PIPELINE:
        return chosen
    return chosen.override([_named(item, experiment, root) for item in [*_preset(args), *args.set]])


def _one_step(
    stage: str, experiment: Experiment, root: Path, args: argparse.Namespace, assigned: Sequence[str]
) -> Step:
    """Return one stage's step: the experiment's own where it has one, else the stage's defaults; flags win."""
    candidates = [step for step in experiment.steps if step.stage == stage]
    name: str = getattr(args, "name", None) or ""
    found = next((step for step in candidates if step.key == name), next(iter(candidates), None))
    config = found.config if found else get_stage(stage).config.build({}, stage)
    mine = set(published_names(type(config)))
    if stage != "grpo":  # a preset's LEARNING_RATE is the published trainer's, not the warm-up's
        mine -= set(published_names(get_stage("grpo").config))
    preset = [item for item in _preset(args) if item.partition("=")[0] in mine or item.startswith(f"{stage}.")]
    preset = [item.removeprefix(f"{stage}.") for item in preset]
    given = [*preset, *(_named(item, experiment, root, stage) for item in assigned)]
    config = config.override([*_prompt_of_run(stage, experiment, args.run, given), *given], stage)
    resources, shards = (found.resources, found.shards) if found else (None, None)
    return Step(stage, config, resources, name, shards)


def _named(item: str, experiment: Experiment, root: Path, stage: str = "") -> str:
    """Return an assignment of checkpoints with what its bare words mean; any other as it is."""
    path, _, text = item.partition("=")
    head, _, field = f"{stage}.{path}".removeprefix(".").partition(".")
    owner = next((step for step in experiment.steps if head in {step.key, step.stage}), None)
    config = type(owner.config) if owner else STAGES[head].config if head in STAGES else None
    if field != "checkpoints" or config is None or field not in flat_fields(config) or text.startswith("{"):
        return item
    known = dict(getattr(owner.config, field)) if owner else {}
    trainers = [step.key for step in experiment.steps if step.stage == "grpo"] or ["grpo"]
    return f"{path}={json.dumps(Names(RunPaths(root), known, trainers).references(text))}"


def _prompt_of_run(stage: str, experiment: Experiment, run: str | None, given: Sequence[str]) -> list[str]:
    """Return the prompt that the run's pairs were made with, where the experiment does not say it.

    A student is warmed up on the prompt that it will be trained on.
    """
    pairs = read_manifest(RunPaths(Path(run)).stage("pairs")) if run else None
    if stage not in _OF_PROMPT or pairs is None or any(item.startswith("prompt=") for item in given):
        return []
    prompt = str(pairs.config["prompt"])
    its_own = {step.stage: step.config.model_dump().get("prompt") for step in experiment.steps}
    if prompt == its_own.get("pairs") and stage in its_own:
        return []
    _LOG.info("prompt %s, as this run's pairs (another: --prompt)", prompt)
    return [f"prompt={prompt}"]


def _preset(args: argparse.Namespace) -> list[str]:
    return [item for path in args.preset for item in read_preset(Path(path))]


def _with_resources(steps: Sequence[Step], args: argparse.Namespace) -> tuple[Step, ...]:
    """Apply the resource flags. In a pipeline, GPUs go to the stages that use them, several nodes to the trainers."""
    given = {"nodes": args.nodes, "gpus": args.gpus, "cpus": args.cpus, "mem_gb": args.mem_gb, "time_min": args.time}
    update = {name: value for name, value in given.items() if value is not None}
    changed: list[Step] = []
    for step in steps:
        stage, mine = get_stage(step.stage), dict(update)
        if len(steps) > 1 and not stage.resources.gpus:
            mine.pop("gpus", None)
        if len(steps) > 1 and not stage.frozen_inputs:
            mine.pop("nodes", None)
        changed.append(replace(step, resources=Resources.build({**step.needs.model_dump(), **mine})))
    return tuple(changed)
