"""What starting in an image costs: `apptainer exec IMAGE python -c "import btrm"` against the same without an image.

    python benchmarks/bench_container.py [--image FILE] [--python PATH] [--runs 9]

Without --image it takes the newest one that the tests have built. The image's Python runs this checkout's btrm in
both cases, bound into the image as a job's copy of the code is; the medians are of starts one after another.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from btrm.launch.runtime import exec_words
from btrm.launch.site import Container

CODE = Path(__file__).parent.parent
KEPT = Path("/var/tmp") / f"btrm-tests-{os.getuid()}"
TARGET_S = 1.0
IMPORTS = {"true": "", "import btrm": "import btrm", "a job's start": "import btrm.launch.job"}


def seconds(command: Sequence[str], runs: int) -> float:
    """Return the median time of a command, after one start that warms what is cached."""
    env = {**os.environ, "PYTHONPATH": str(CODE), "APPTAINERENV_PYTHONPATH": str(CODE), "PYTHONDONTWRITEBYTECODE": "1"}
    times: list[float] = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def newest_image() -> Path | None:
    """Return the newest image of the tests."""
    return max(KEPT.glob("btrm-cpu-*.sif"), key=lambda path: path.stat().st_mtime, default=None)


def main() -> int:
    """Print a line a start; 1 where an image costs more than the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=newest_image(), help="an image of btrm's (%(default)s)")
    parser.add_argument("--python", default="/opt/btrm/venv/bin/python", help="the image's Python (%(default)s)")
    parser.add_argument("--runs", type=int, default=9, help="starts of each (%(default)s)")
    args = parser.parse_args()
    if args.image is None or shutil.which("apptainer") is None:
        print("not measured: it needs apptainer on PATH and an image (--image FILE, or what the tests have built)")
        return 0
    container = Container(image=str(args.image), nv=False)
    costs: dict[str, float] = {}
    print(f"{args.image}, medians of {args.runs}")
    print(f"{'':<16}{'bare s':>9}{'image s':>9}{'more s':>9}{'ratio':>8}")
    for name, code in IMPORTS.items():
        here, there = ([sys.executable, "-c", code], [args.python, "-c", code]) if code else (["true"], ["true"])
        bare = seconds(here, args.runs)
        image = costs[name] = seconds(exec_words(container, [str(CODE)], CODE, there), args.runs)
        print(f"{name:<16}{bare:>9.3f}{image:>9.3f}{image - bare:>9.3f}{image / bare:>8.1f}")
    print(f"apptainer exec + import btrm: {costs['import btrm']:.3f} s, target {TARGET_S:g} s")
    return int(costs["import btrm"] > TARGET_S)


if __name__ == "__main__":
    sys.exit(main())
