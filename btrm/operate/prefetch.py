"""`btrm prefetch`: what an experiment takes from the hub is brought into the cache that a site's offline jobs read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from btrm.config import ConfigError
from btrm.hub import HubItem, hub_cache, is_offline, snapshot
from btrm.launch.offline import hub_items
from btrm.launch.plan import get_experiment
from btrm.launch.site import Site

# The same weights in other frameworks' formats: left out where there are safetensors.
_OTHER_FORMATS = ("*.bin", "*.pth", "*.pt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*")
_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def prefetch(name: str, site: Site, root: Path | None) -> Iterator[str]:
    """Yield a line for each model and data set of an experiment as it is there; steps complete in `root` need none.

    Raises ConfigError at the end for all that could not be fetched: what could be stays.
    """
    items = hub_items(get_experiment(name), root)
    os.environ.update(site.env)
    for switch in _SWITCHES:  # they are for the jobs; the hub's library reads them when it is imported
        os.environ.pop(switch, None)
    problems: list[str] = []
    for item, places in items.items():
        try:
            yield f"{_fetch(item)}  ({', '.join(places)})"
        except ConfigError as error:
            problems.append(f"{', '.join(places)}: {error}")
    if not items:
        yield f"{name}: nothing that is still to run comes from the hub"
    if problems:
        raise ConfigError("\n".join(problems))


def _fetch(item: HubItem) -> str:
    there = snapshot(item, os.environ)
    if there is not None:
        return f"there     {item}: {_size(there) / 1e9:.2f} GB in {there}"
    started = time.monotonic()
    _download(item)
    found = snapshot(item, os.environ)
    if found is None:
        raise ConfigError(f"{item}: fetched, but not whole in {hub_cache(os.environ)}: no config.json, weights or data")
    return f"fetched   {item}: {_size(found) / 1e9:.2f} GB in {time.monotonic() - started:.0f} s to {found}"


def _download(item: HubItem) -> None:
    """Bring an item's files into the cache; what an earlier, broken-off download has brought is not fetched again."""
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(f"{item}: `pip install huggingface_hub` to fetch it") from None
    from huggingface_hub.errors import HfHubHTTPError

    assert not is_offline(os.environ)
    hub: Any = huggingface_hub
    where = {"repo_id": item.name, "repo_type": item.kind, "revision": item.revision}
    try:
        names = [entry.rfilename for entry in hub.HfApi().repo_info(**where).siblings or ()]
        safe = item.kind == "model" and any(name.endswith(".safetensors") for name in names)
        hub.snapshot_download(
            **where,
            cache_dir=hub_cache(os.environ),
            allow_patterns=list(item.files) or None,
            ignore_patterns=list(_OTHER_FORMATS) if safe else None,
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        said = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{item}: {said}; a private or gated one needs HF_TOKEN in .env") from error
    except Exception as error:  # the library's transport has errors of its own
        if type(error).__module__.partition(".")[0] not in {"httpx", "requests", "hf_xet"}:
            raise
        raise ConfigError(f"{item}: {error}; is this machine connected? HF_ENDPOINT names another hub") from error


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
