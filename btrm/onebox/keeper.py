"""`python -m btrm.onebox.keeper OWNER_PID CONF DAEMONS`: when the owner is gone, however it went, so is its cluster.

PR_SET_PDEATHSIG would be shorter, but it fires when the *thread* that started a daemon ends.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from btrm.onebox.processes import end_all


def main(owner: int, conf: Path, daemons: Path) -> None:
    """Wait for the owner's end, then end the cluster."""
    try:
        descriptor = os.pidfd_open(owner)
    except ProcessLookupError:
        pass
    else:
        select.select([descriptor], [], [])
    end_all(conf, daemons)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
