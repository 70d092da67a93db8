"""What a job's runner does on one node of several: node 0 executes the stage, the others follow.

python one_node.py STAGE/stage.json     # ends with 75 where it stopped when asked to
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from btrm.leases import held
from btrm.stages import execute
from btrm.stopping import Stopped, listen
from btrm.train.launch import follow


def beat() -> None:
    while True:
        time.sleep(2)
        for lease in held():
            lease.renew()


def main(request: Path) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    listen({signal.SIGURG: "the time limit is near", signal.SIGTERM: "SIGTERM"})
    if os.environ["NODE_RANK"] != "0":
        return follow(request.parent)
    threading.Thread(target=beat, daemon=True).start()
    try:
        execute(request)
    except Stopped as stopped:
        print(f"stopped: {stopped}")
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
