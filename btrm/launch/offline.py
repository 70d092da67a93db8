"""What an experiment takes from the hub, and whether nodes without internet would find it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from btrm.data.pairs import PairsConfig
from btrm.data.sources import get_source
from btrm.hub import HubItem, hub_cache, is_hub_name, snapshot
from btrm.launch.plan import Experiment, Step
from btrm.runs import RunPaths, read_manifest
from btrm.stage_inputs import references


def hub_items(experiment: Experiment, root: Path | None = None) -> dict[HubItem, list[str]]:
    """Return {item: where it is asked for, as STEP.field} of the steps that are not complete in the run's folder."""
    found: dict[HubItem, list[str]] = {}
    for step in experiment.steps:
        if root is None or read_manifest(RunPaths(root).stage(step.key)) is None:
            for field, item in _items(step):
                places = found.setdefault(item, [])
                if f"{step.key}.{field}" not in places:
                    places.append(f"{step.key}.{field}")
    return found


def missing_offline(
    experiment: Experiment,
    env: Mapping[str, str],
    root: Path | None = None,
    origin: str | None = None,
    site: str | None = None,
) -> list[str]:
    """Return what jobs with HF_HUB_OFFLINE=1 would not find, a line each; `env` is theirs (HF_HOME and the like).

    `origin` and `site` are what the experiment and the site were called, for the command that the lines tell.
    """
    words = ["btrm", "prefetch", "--experiment", origin or experiment.name, *(["--site", site] if site else [])]
    return [
        f"{', '.join(places)}: {item}: not whole in {hub_cache(env)}, and jobs here are offline; "
        f"first, on a machine with internet: {shlex.join(words)}"
        for item, places in hub_items(experiment, root).items()
        if snapshot(item, env) is None
    ]


def _items(step: Step) -> Iterator[tuple[str, HubItem]]:
    for field, reference in references(step.config):
        if is_hub_name(reference) and not Path(reference).exists():
            yield field, HubItem("model", reference)
    if isinstance(step.config, PairsConfig) and not step.config.data_files:
        item = get_source(step.config.dataset).hub
        if item is not None:
            yield "dataset", item
