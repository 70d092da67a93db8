"""The summary in Weights & Biases, where WANDB_PROJECT asks for it.

A cluster's job (WANDB_MODE unset) writes beside its other files, for nodes have no internet as a rule; the log tells
what to type later where there is. Nothing of the environment, of the command line or of git is kept.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btrm.locks import OWNER
from btrm.report.selection import is_optimistic

_LOG = logging.getLogger(__name__)
_FILES = ("summary.csv", "summary_long.csv", "summary.md", "comparisons.csv", "report.html", "learning_curve.png")


@dataclass(frozen=True, slots=True)
class Logged:
    """What is logged of a run: the rows of summary.csv, its files' folder, and the manifest of its judgements."""

    run: str
    records: Sequence[Mapping[str, Any]]
    files: Path
    best: str
    judgements: Path


def log_summary(what: Logged) -> bool:
    """Log accuracy by step, the table, the picture and an artifact; return whether it was asked for and possible.

    A failure there (no network, no login) is a warning: the files are the result.
    """
    if not os.environ.get("WANDB_PROJECT"):
        return False
    if importlib.util.find_spec("wandb") is None:
        _LOG.warning("WANDB_PROJECT is set, but wandb is not installed: pip install 'btrm[wandb]'")
        return False
    try:
        kept = _log(what)
    except Exception as error:  # whatever a remote service may raise
        _LOG.warning("not logged to W&B: %s", error)
        return False
    if kept is not None:
        _LOG.info("W&B: kept offline. Later, where there is internet: wandb sync %s", kept)
    return True


def mode(environ: Mapping[str, str]) -> str | None:
    """Return W&B's mode: WANDB_MODE where it is set, offline in a cluster's job, else W&B's own choice (None)."""
    return environ.get("WANDB_MODE") or ("offline" if OWNER in environ or "SLURM_JOB_ID" in environ else None)


def _log(what: Logged) -> Path | None:
    """Log all; return the folder to sync later, None where it went to the service at once."""
    import wandb

    api: Any = wandb
    try:
        with _opened(api, what) as tracked:
            _log_curves(tracked, what.records)
            columns = list(what.records[0])
            data = [[_plain(record[name]) for name in columns] for record in what.records]
            tracked.log({"summary": api.Table(columns=columns, data=data)})
            tracked.log({"learning_curve": api.Image(str(what.files / "learning_curve.png"))})
            tracked.log_artifact(_artifact(api, what))
            if not tracked.offline:
                _LOG.info("W&B: %s", tracked.url)
            return Path(str(tracked.settings.sync_dir)) if tracked.offline else None
    finally:
        api.teardown()  # what a run of it leaves is whole on disk only when its service has ended


def _opened(api: Any, what: Logged) -> Any:
    """Begin a run of W&B; it knows nothing of this machine but what it is told here."""
    nothing_else = {"disable_git": True, "save_code": False, "x_disable_meta": True, "x_disable_stats": True}
    return api.init(
        name=f"{what.run}-summary",
        group=what.run,
        job_type="summarize",
        tags=["btrm", *(name[:64] for name in _datasets(what.records))],
        notes=what.best or None,
        dir=os.environ.get("WANDB_DIR") or str(what.files),
        mode=mode(os.environ),
        settings=api.Settings(console="off", silent=True, **nothing_else),
    )


def _datasets(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({str(record["dataset"]) for record in records})


def _log_curves(tracked: Any, records: Sequence[Mapping[str, Any]]) -> None:
    for dataset in _datasets(records):
        tracked.define_metric(f"{dataset}/*", step_metric=f"{dataset}/step")
    for record in records:
        if record["step"] is not None:
            told = {name: _plain(record[name]) for name in ("step", "accuracy", "accuracy_low", "accuracy_high")}
            told["optimistic"] = int(is_optimistic(record))  # 1: selected on these data
            tracked.log({f"{record['dataset']}/{name}": value for name, value in told.items()})


def _artifact(api: Any, what: Logged) -> Any:
    """Return the summary's files with the manifest that tells the judgements' hash, as one artifact.

    They are taken from where they lie, also by a later sync: no copy goes into somebody's home.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", what.run)[:100]
    artifact = api.Artifact(f"{name}-summary", type="evaluation", description=what.best or None)
    files = {name: what.files / name for name in _FILES} | {"judgements.manifest.json": what.judgements}
    for name, file in files.items():
        if file.exists():
            artifact.add_file(str(file), name=name, policy="immutable", skip_cache=True)
    return artifact


def _plain(value: Any) -> Any:
    """Return what is not defined as None: a table's column holds numbers or nothing."""
    return None if value == "" or (isinstance(value, float) and not math.isfinite(value)) else value
