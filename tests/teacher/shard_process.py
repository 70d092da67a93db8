"""One shard of the teacher stage as a process of its own: python shard_process.py ROOT CONFIG.json ELEMENT ELEMENTS."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from batch_stage import do_share

from btrm.teacher.config import TeacherConfig


def main() -> None:
    """Do the share; to be killed at any moment and started again."""
    root, config, element, elements = sys.argv[1:]
    os.environ.pop("BTRM_OWNER", None)
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        os.environ["BTRM_OWNER"] = f"job {array}_{element}"
    do_share(TeacherConfig.build(json.loads(Path(config).read_text())), Path(root), int(element), int(elements))


if __name__ == "__main__":
    main()
