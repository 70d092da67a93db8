"""The stages and one dict of them; how any stage is prepared, executed and committed.

python -m btrm.stages RUN/STAGE/stage.json      # what a job runs: the request is all that it reads
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

from btrm.config import ConfigError, flat_fields, has_mark, nearest, role
from btrm.images import inside_image
from btrm.prompts import PROMPTS
from btrm.records import stable_hash
from btrm.runs import (
    CODE,
    IMAGE,
    IMAGE_SHA256,
    JOB_IDS,
    MANIFEST,
    REQUEST,
    Output,
    Resources,
    RunManifest,
    RunPaths,
    StageConfig,
    StageRequest,
    StageResult,
    StageRun,
    clear_attempts,
    exclusive,
    fingerprint,
    git_revision,
    now,
    outputs_of,
    package_versions,
    read_manifest,
    read_request,
    sha256_file,
    sha256_path,
    verify,
    write_json,
)
from btrm.staging import Staging
from btrm.work import Pool, Unit

_LOG = logging.getLogger(__name__)


# What can only be a path, never a hub's name.
_PATH_STARTS = ("/", "./", "../", "~")
_DATA_ENDS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".csv")
State = Literal["new", "resume", "extend", "anew", "complete"]
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
        publishes=("pairs.parquet",),
        lends=True,
    ),
    "variance": replace(
        _shared(
            _model("btrm.judges.variance", "VarianceConfig", "variance", "prompts x data sets x seeds on one model"),
            "halve_batch",
        ),
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A validated request and what the disk says about it."""

    request: StageRequest
    directory: Path
    done: bool
    note: State


def prepare(name: str, config: StageConfig, resources: Resources, root: Path, stage: str | None = None) -> Prepared:
    """Check a stage's inputs and its directory; raise ConfigError for anything that would fail or mix settings."""
    stage_name = stage or name
    paths = RunPaths(root)
    directory = paths.stage(name)
    inputs, lineage = _inputs(config, paths)
    digests = [fingerprint(stage_name, config.identity(), lineage)]
    digests += _former_fingerprints(config, stage_name, lineage, paths, directory)
    before = read_manifest(directory) or read_request(directory)
    request = StageRequest(
        stage=stage_name,
        name=name,
        root=str(root),
        config=config.model_dump(mode="json"),
        resources=resources,
        fingerprint=before.fingerprint if before and before.fingerprint in digests else digests[0],
        inputs=inputs,
    )
    state = _state(request, directory)
    if state != "complete":
        run = StageRun(paths, name, directory, resources, directory / REQUEST)
        get_stage(stage_name).check(config, run)
    return Prepared(request, directory, state == "complete", state)


def settings_problems(name: str, config: StageConfig, resources: Resources, root: Path, stage: str) -> list[str]:
    """Return what a step would refuse whatever its inputs will be, a line each."""
    directory = RunPaths(root).stage(name)
    try:
        get_stage(stage).check_settings(
            config, StageRun(RunPaths(root), name, directory, resources, directory / REQUEST)
        )
    except ConfigError as error:
        return [f"{name}: {line}" for line in str(error).splitlines()]
    return []


def _state(request: StageRequest, directory: Path) -> State:
    """Return what there is to do in a stage's directory; raise ConfigError where settings would be mixed."""
    manifest, before = read_manifest(directory), read_request(directory)
    frozen = get_stage(request.stage).frozen_inputs
    made_with = manifest or before
    if get_stage(request.stage).derived and made_with is not None:
        by_another = manifest is not None and manifest.packages.get("btrm") != package_versions().get("btrm")
        if by_another or made_with.fingerprint != request.fingerprint:
            return "anew"
    if manifest is None:
        if before is None or not _holds_work(directory):
            return "new"
        if before.fingerprint != request.fingerprint:
            raise ConfigError(f"{directory}: half-done with other settings; {_changes(before, request)}")
        if before.inputs != request.inputs and frozen:
            raise ConfigError(f"{directory}: half-trained on other inputs; {_changes(before, request)}")
        return "resume"
    if manifest.fingerprint != request.fingerprint:
        raise ConfigError(f"{directory}: complete with other settings; {_changes(manifest, request)}")
    if manifest.inputs != request.inputs and frozen:
        raise ConfigError(f"{directory}: trained on other inputs; {_changes(manifest, request)}")
    same_extent = _extent(request.stage, manifest.config) == _extent(request.stage, request.config)
    whole = all(name in manifest.outputs for name in get_stage(request.stage).publishes)
    return "complete" if same_extent and whole and manifest.inputs == request.inputs else "extend"


def _holds_work(directory: Path) -> bool:
    """Say whether an attempt left more than its request: one that failed at once may be tried with other settings."""
    return any(path.name != REQUEST and not path.name.startswith(".") for path in directory.iterdir())


def verify_run(directory: Path) -> list[str]:
    """Check what the manifests under a run claim, outputs and inputs alike; return one line for each thing wrong."""
    problems = verify(directory)
    for path in sorted(directory.rglob(MANIFEST)):
        manifest = read_manifest(path.parent)
        assert manifest is not None
        try:
            config = get_stage(manifest.stage).config.build(manifest.config, str(path))
            now_there, _ = _inputs(config, RunPaths(path.parent.parent), manifest.inputs)
        except ConfigError as error:
            problems.append(f"{path}: {error}")
            continue
        changed = [name for name, sha in manifest.inputs.items() if now_there.get(name) != sha]
        problems += [f"{path}: input {name} has changed since" for name in changed]
    return problems


def execute(request_path: Path, staging: Staging | None = None) -> RunManifest:
    """Run the stage that a request describes, commit it, and return its manifest. Safe to call any number of times.

    Inputs that were staged to this node's disk are read from there.
    """
    directory = request_path.parent
    request = read_request(directory)
    if request is None:
        raise ConfigError(f"{request_path}: no such request")
    stage = get_stage(request.stage)
    config = stage.config.build(request.config, str(request_path))
    with exclusive(directory):
        prepared = prepare(request.name, config, request.resources, Path(request.root), request.stage)
        if prepared.done:
            manifest = read_manifest(directory)
            assert manifest is not None
            return manifest
        return _execute(stage, config, prepared, staging)


def _execute(stage: Stage, config: StageConfig, prepared: Prepared, staging: Staging | None) -> RunManifest:
    request, directory = prepared.request, prepared.directory
    started, clock = now(), time.monotonic()
    (directory / MANIFEST).unlink(missing_ok=True)  # being extended: not complete until it is again
    clear_attempts(directory)
    paths = RunPaths(Path(request.root))
    staged = staging.local if staging else {}
    run = StageRun(paths, request.name, directory, request.resources, directory / REQUEST, staged)
    result = stage.run(config, run)
    by_hand = inside_image(os.environ)
    manifest = RunManifest(
        stage=request.stage,
        name=request.name,
        fingerprint=request.fingerprint,
        config=request.config,
        inputs=request.inputs,
        outputs=outputs_of(directory, result.outputs),
        results=result.results | ({"staging": staging.results()} if staging else {}),
        resources=request.resources,
        git=git_revision(),
        image=os.environ.get(IMAGE) or by_hand[0],
        image_sha256=os.environ.get(IMAGE_SHA256) or None,
        code=os.environ.get(CODE) or by_hand[1],
        packages=package_versions(),
        host=os.uname().nodename,
        job_ids=os.environ.get(JOB_IDS, os.environ.get("SLURM_JOB_ID", "")).split(),
        started=started,
        finished=now(),
        seconds=round(time.monotonic() - clock, 3),
    )
    write_json(directory / MANIFEST, manifest.model_dump(mode="json"))
    clear_attempts(directory)
    return manifest


def _inputs(
    config: StageConfig, paths: RunPaths, among: Container[str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return ({reference: sha256}, {field: lineage}) of a config's sources; raise ConfigError for what is missing.

    References that are not `among` those given are left out: an older btrm did not have that input.
    """
    inputs: dict[str, str] = {}
    lineage: dict[str, str] = {}
    problems: list[str] = []
    known = flat_fields(type(config))
    for name, reference in references(config):
        if among is not None and reference not in among:
            continue
        try:
            inputs[reference], origin = _input(reference, paths)
            if role(known[name]) == "source":
                lineage[name] = f"{lineage[name]} {origin}" if name in lineage else origin
        except ConfigError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    code = code_digests(config)
    grown = {name: stable_hash(text) for name, text in config.growing_texts().items()}
    return inputs | code | grown, lineage | code


def _former_fingerprints(
    config: StageConfig, stage: str, lineage: Mapping[str, str], paths: RunPaths, directory: Path
) -> Iterator[str]:
    """Yield what an older btrm would have called this run, where members of now were its one source."""
    before = read_manifest(directory) or read_request(directory)
    if before is None:
        return
    known = flat_fields(type(config))
    now_there, back_then = config.model_dump(mode="json"), before.config
    for name in (name for name, info in known.items() if has_mark(info, "once_source")):
        for reference in {**dict.fromkeys(_listed(back_then.get(name))), **dict.fromkeys(_listed(now_there[name]))}:
            with contextlib.suppress(ConfigError):
                yield fingerprint(stage, config.identity(), {**lineage, name: _input(reference, paths)[1]})


def code_digests(config: StageConfig) -> dict[str, str]:
    """Return {name: digest} of what settings name by reference: a user's own FILE.py, and a prompt's text."""
    digests = {name: stable_hash(text) for name, text in config.named_texts().items()}
    for name, value in config.by_role("setting").items():
        file = Path(str(value).rpartition(":")[0]).expanduser() if ".py:" in str(value) else None
        if file is not None and file.is_file():
            digests[str(value)] = sha256_file(file)
        elif name == "prompt" and value in PROMPTS:
            digests[f"prompt {value}"] = stable_hash(repr(PROMPTS[value]))
    return digests


def references(config: StageConfig) -> list[tuple[str, str]]:
    """Return (field, reference) for every input that a config names, whichever shape its field has."""
    found: list[tuple[str, str]] = []
    values = config.model_dump(mode="json")
    for name, info in flat_fields(type(config)).items():
        value = _value(values, name) if role(info) in {"source", "members"} else None
        found += [(name, reference) for reference in _listed(value)]
    return found


def _listed(value: Any) -> list[str]:
    """Return the references in a field's value, whichever shape it has."""
    many = value.values() if isinstance(value, dict) else [value] if isinstance(value, str) else value or []
    return [str(reference) for reference in cast("list[Any]", list(many))]


def _input(reference: str, paths: RunPaths) -> tuple[str, str]:
    """Return (sha256, lineage) of one input."""
    if reference.startswith("@"):
        stage, _, rest = reference[1:].partition("/")
        manifest = read_manifest(paths.stage(stage))
        if manifest is None:
            raise ConfigError(
                f"{reference}: {paths.stage(stage)} is not complete; "
                f"first: python -m btrm.submit {stage} --run {paths.root}"
            )
        below = {p: o for p, o in manifest.outputs.items() if not rest or _below(p, rest)}
        if not below and rest in get_stage(manifest.stage).publishes:
            raise ConfigError(
                f"{reference}: an older btrm did not write it; first, to add it and nothing else: "
                f"python -m btrm.submit {stage} --run {paths.root}"
            )
        if not below:
            raise ConfigError(f"{reference}: not an output of {stage}{nearest(rest, manifest.outputs)}")
        return _combined(below), f"@{stage}/{rest} {manifest.fingerprint}"
    if glob.has_magic(reference) and (folders := paths.matches(reference)):
        digest = fingerprint("folders", {}, {str(folder): sha256_path(folder) for folder in folders})
        return digest, digest
    path = paths.resolve(reference)
    if path is None:
        if reference.startswith(_PATH_STARTS) or reference.endswith(_DATA_ENDS):
            raise ConfigError(f"{reference}: no such file or folder")
        return "", reference  # a hub's name: its revision is the trainer's to record
    digest = sha256_path(path)
    return digest, digest


def _below(path: str, pattern: str) -> bool:
    """Say whether `pattern` (globs allowed) is the path or one of its folders."""
    return any(fnmatch.fnmatchcase(str(p), pattern) for p in (PurePosixPath(path), *PurePosixPath(path).parents))


def _combined(outputs: Mapping[str, Output]) -> str:
    if len(outputs) == 1:
        return next(iter(outputs.values())).sha256
    return fingerprint("outputs", {}, {path: output.sha256 for path, output in outputs.items()})


def _extent(stage: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return get_stage(stage).config.build(config).by_role("extent", "members")


def _changes(before: StageRequest | RunManifest, after: StageRequest) -> str:
    """Say which settings and inputs differ, and what can be done."""
    known = flat_fields(get_stage(after.stage).config)
    lines = [
        f"{name} was {_value(before.config, name)!r}, now {_value(after.config, name)!r}"
        for name, info in known.items()
        if role(info) in {"setting", "source"} and _value(before.config, name) != _value(after.config, name)
    ]
    lines += [f"{name} has other content" for name, sha in after.inputs.items() if before.inputs.get(name, sha) != sha]
    lines = lines or ["an input was made with other settings"]
    advice = "Take what it was made with, another --run or --name, or remove the directory."
    return f"{'; '.join(lines)}. {advice}"


def _value(config: Mapping[str, Any], path: str) -> Any:
    found: Any = config
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        execute(Path(sys.argv[1]).resolve())
    except ConfigError as error:
        sys.exit(str(error))
