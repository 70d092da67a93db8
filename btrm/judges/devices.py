"""Whether an element's GPUs are as many as its model is spread over."""

from __future__ import annotations

import logging

from btrm.config import ConfigError
from btrm.judges.grid_config import GridConfig
from btrm.runs import StageRun

_LOG = logging.getLogger(__name__)


def check_devices(config: GridConfig, run: StageRun) -> None:
    """Refuse a model on more GPUs than an element has; say where it has more than it will use."""
    has, uses = run.resources.gpus, config.tensor_parallel
    if uses > max(has, 1):
        raise ConfigError(f"tensor_parallel {uses}: an element has --gpus {has}; take --gpus {uses}")
    if has > uses:
        told = "%s: of --gpus %d only %d will work; --gpus %d --shards N judges on N times as many"
        _LOG.warning(told, run.name, has, uses, uses)
