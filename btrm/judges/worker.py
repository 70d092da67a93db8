"""One of several processes that share a device: python -m btrm.judges.worker ORDER.json NUMBER."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from btrm.judges.packed import PARENT
from btrm.runs import REQUEST, Resources, RunPaths, StageRun
from btrm.stopping import Stopped, listen
from btrm.work import Pool, read_units

_PR_SET_PDEATHSIG = 1
STOPPED_CODE = 75


def main(argv: Sequence[str]) -> int:
    """Do a worker's part of an element's share, and say each commit's rows; 75 where it was asked to stop."""
    _die_with_parent()
    number = int(argv[1])
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s worker {number}: %(message)s", datefmt="%H:%M:%S")
    listen({signal.SIGTERM: "the element stops"})
    rows = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what an engine prints is no row
    order: dict[str, Any] = json.loads(Path(argv[0]).read_text())
    pool = Pool(read_units(Path(argv[0]).with_name("units.json")), order["element"], order["elements"])
    try:
        for done in _share(order, pool.part(number, order["workers"])):
            rows.write(f"{done}\n")
    except Stopped:
        return STOPPED_CODE
    except Exception:
        Path(argv[0]).with_name(f"failed.{number}").write_text(traceback.format_exc())  # the element classifies it
        raise
    return 0


def _share(order: dict[str, Any], pool: Pool) -> Any:
    directory = Path(order["directory"])
    staged = {Path(path): Path(copy) for path, copy in order["staged"].items()}
    resources = Resources.build(order["resources"])
    paths = RunPaths(Path(order["root"]))
    run = StageRun(paths, order["name"], directory, resources, directory / REQUEST, staged)
    if order["stage"] == "variance":
        from btrm.judges.variance import VarianceConfig, share_variance

        return share_variance(VarianceConfig.build(order["config"]), run, pool.own(), pool)
    from btrm.judges.grid import JudgeConfig, share_judge

    return share_judge(JudgeConfig.build(order["config"]), run, pool.own(), pool)


def _die_with_parent() -> None:
    """Ask the kernel to end this process with its parent, so that kill -9 of an element leaves no worker behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ[PARENT]):
        sys.exit("the element that started this worker is gone")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
