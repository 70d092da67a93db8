"""The summary in Weights & Biases, where WANDB_PROJECT asks for it."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)


def log_summary(name: str, records: Sequence[Mapping[str, Any]], picture: Path) -> bool:
    """Log accuracy by step, the table and the picture; return whether it was asked for and possible.

    A failure there (no network, no login) is a warning: the files are the result.
    """
    if not os.environ.get("WANDB_PROJECT"):
        return False
    if importlib.util.find_spec("wandb") is None:
        _LOG.warning("WANDB_PROJECT is set, but wandb is not installed: pip install 'btrm[wandb]'")
        return False
    try:
        _log(name, records, picture)
    except Exception as error:  # whatever a remote service may raise
        _LOG.warning("not logged to W&B: %s", error)
        return False
    return True


def _log(name: str, records: Sequence[Mapping[str, Any]], picture: Path) -> None:
    import wandb

    api: Any = wandb
    with api.init(name=f"{name}-summary", job_type="summarize") as tracked:
        for record in records:
            if record["step"] is not None:
                step = {f"{record['split']}/step": record["step"], f"{record['split']}/accuracy": record["accuracy"]}
                tracked.log(step)
        columns = list(records[0])
        tracked.log({"summary": api.Table(columns=columns, data=[[r[c] for c in columns] for r in records])})
        tracked.log({"learning_curve": api.Image(str(picture))})
