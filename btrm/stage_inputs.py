"""What a stage's config names: its inputs, their digests, and where they came from."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
from collections.abc import Container, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from btrm.config import ConfigError, flat_fields, has_mark, nearest, role
from btrm.prompts import PROMPTS
from btrm.records import stable_hash
from btrm.runs import (
    Output,
    RunPaths,
    StageConfig,
    fingerprint,
    read_manifest,
    read_request,
    sha256_file,
    sha256_path,
)
from btrm.stage_table import get_stage

# What can only be a path, never a hub's name.
_PATH_STARTS = ("/", "./", "../", "~")
_DATA_ENDS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".csv")


def find_inputs(
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


def former_fingerprints(
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
        value = value_of(values, name) if role(info) in {"source", "members"} else None
        found += [(name, reference) for reference in _listed(value)]
    return found


def _listed(value: Any) -> list[str]:
    """Return the references in a field's value, whichever shape it has."""
    many = value.values() if isinstance(value, dict) else [value] if isinstance(value, str) else value or []
    return [str(reference) for reference in cast("list[Any]", list(many))]


def _input(reference: str, paths: RunPaths) -> tuple[str, str]:
    """Return (sha256, lineage) of one input."""
    if reference.startswith("@"):
        return _output(reference, paths)
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


def _output(reference: str, paths: RunPaths) -> tuple[str, str]:
    """Return (sha256, lineage) of another stage's outputs, `@STAGE/path`."""
    stage, _, rest = reference[1:].partition("/")
    manifest = read_manifest(paths.stage(stage))
    command = f"python -m btrm.submit {stage} --run {paths.root}"
    if manifest is None:
        raise ConfigError(f"{reference}: {paths.stage(stage)} is not complete; first: {command}")
    below = {path: output for path, output in manifest.outputs.items() if not rest or _below(path, rest)}
    if not below and rest in get_stage(manifest.stage).publishes:
        raise ConfigError(f"{reference}: an older btrm did not write it; first, to add it and nothing else: {command}")
    if not below:
        raise ConfigError(f"{reference}: not an output of {stage}{nearest(rest, manifest.outputs)}")
    return _combined(below), f"@{stage}/{rest} {manifest.fingerprint}"


def _below(path: str, pattern: str) -> bool:
    """Say whether `pattern` (globs allowed) is the path or one of its folders."""
    return any(fnmatch.fnmatchcase(str(p), pattern) for p in (PurePosixPath(path), *PurePosixPath(path).parents))


def _combined(outputs: Mapping[str, Output]) -> str:
    if len(outputs) == 1:
        return next(iter(outputs.values())).sha256
    return fingerprint("outputs", {}, {path: output.sha256 for path, output in outputs.items()})


def value_of(config: Mapping[str, Any], path: str) -> Any:
    """Return a field of a dumped config by its dotted path; None where it has none."""
    found: Any = config
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
