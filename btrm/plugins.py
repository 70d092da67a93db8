"""A user's own code, found by path: `file.py:name`."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from btrm.config import ConfigError, nearest


def load_object(reference: str) -> Any:
    """Import `FILE.py:NAME` and return the object; the file's folder is not added to sys.path.

    Raises ConfigError where the file or the name does not exist.
    """
    path_text, _, name = reference.rpartition(":")
    path = Path(path_text).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"{reference}: no file {path}")
    module_name = f"btrm_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"{reference}: {path.name} has no {name!r}{nearest(name, public)}")
    return getattr(module, name)


def shipped(folder: str) -> Path:
    """Return the folder `experiments`, `slurm` or `containers`: package data in a wheel, the checkout's otherwise."""
    packaged = Path(__file__).parent / "_shipped" / folder
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / folder
