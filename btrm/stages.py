"""How any stage is prepared, executed and committed.

python -m btrm.stages RUN/STAGE/stage.json      # what a job runs: the request is all that it reads
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from btrm.config import ConfigError, flat_fields, role
from btrm.images import inside_image
from btrm.locks import exclusive
from btrm.publishing import write_json
from btrm.runs import (
    CODE,
    IMAGE,
    IMAGE_SHA256,
    JOB_IDS,
    MANIFEST,
    REQUEST,
    Resources,
    RunManifest,
    RunPaths,
    StageConfig,
    StageRequest,
    StageRun,
    clear_attempts,
    fingerprint,
    now,
    outputs_of,
    read_manifest,
    read_request,
    verify,
)
from btrm.stage_inputs import find_inputs, former_fingerprints, value_of
from btrm.stage_table import Stage, get_stage
from btrm.staging import Staging
from btrm.versions import git_revision, package_versions

State = Literal["new", "resume", "extend", "anew", "complete"]


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
    inputs, lineage = find_inputs(config, paths)
    digests = [fingerprint(stage_name, config.identity(), lineage)]
    digests += former_fingerprints(config, stage_name, lineage, paths, directory)
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
            now_there, _ = find_inputs(config, RunPaths(path.parent.parent), manifest.inputs)
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


def _extent(stage: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return get_stage(stage).config.build(config).by_role("extent", "members")


def _changes(before: StageRequest | RunManifest, after: StageRequest) -> str:
    """Say which settings and inputs differ, and what can be done."""
    known = flat_fields(get_stage(after.stage).config)
    lines = [
        f"{name} was {value_of(before.config, name)!r}, now {value_of(after.config, name)!r}"
        for name, info in known.items()
        if role(info) in {"setting", "source"} and value_of(before.config, name) != value_of(after.config, name)
    ]
    lines += [f"{name} has other content" for name, sha in after.inputs.items() if before.inputs.get(name, sha) != sha]
    lines = lines or ["an input was made with other settings"]
    advice = "Take what it was made with, another --run or --name, or remove the directory."
    return f"{'; '.join(lines)}. {advice}"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        execute(Path(sys.argv[1]).resolve())
    except ConfigError as error:
        sys.exit(str(error))
