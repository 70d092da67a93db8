"""How long `btrm --help` takes to answer, start of Python included. Target: under 0.3 s."""

from __future__ import annotations

import subprocess
import sys
import time

TARGET_S = 0.3


def main() -> int:
    times: list[float] = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "btrm.cli", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    median = sorted(times)[len(times) // 2]
    print(f"btrm --help: {median:.3f} s (median of {len(times)}, target < {TARGET_S} s)")
    return 0 if median < TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
