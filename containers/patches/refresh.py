"""Bring the series in step with btrm: its modules go into the first patch, sums into series.json, its name into btrm.

python refresh.py                  with the plain ms-swift of this Python
python refresh.py --target DIR     with the one in DIR, a folder like site-packages

To change a hunk, edit its patch (`diff -u` of two copies, under a `diff --git` line) and run this.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from apply import SERIES, SUMS, RefusedError, Series, after_patch, found_series, installed, put, read, sections, sums

MODULES = Path(__file__).resolve().parents[2] / "btrm" / "train"
NAMED = MODULES / "swift_series.py"
NEW = ("pair_sampler.py", "pair_hooks.py")
FIRST = "0001-pair-sampler.patch"
HEAD = "The order in which pairs are trained on, and what a GRPO trainer does for it: btrm's modules, as they are.\n\n"


def new_files() -> bytes:
    """Return the patch that adds btrm's modules."""
    return (HEAD + "".join(added(f"swift/rlhf_trainers/{name}", (MODULES / name).read_text()) for name in NEW)).encode()


def added(path: str, text: str) -> str:
    """Return a new file as a diff."""
    lines = text.splitlines(keepends=True)
    head = (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(lines)} @@\n"
    )
    return head + "".join(f"+{line}" for line in lines)


def told(site: Path) -> dict[str, dict[str, str | None]]:
    """Return the sha256 of each file of the series, in a plain ms-swift and once patched."""
    parts = dict(sorted(sections(SERIES).items()))
    before = {path: read(site / path) for path in parts}
    after = {path: after_patch(path, before[path], part, []) for path, part in parts.items()}
    plain, done = sums(before), sums(after)
    return {path: {"before": plain[path], "after": done[path]} for path in parts}


def name_it(series: str) -> None:
    """Write the series' name where btrm knows it by."""
    text = NAMED.read_text()
    put(NAMED, re.sub(r'^SERIES = "\w*"', f'SERIES = "{series}"', text, flags=re.MULTILINE).encode())


def main() -> int:
    """Write the first patch, series.json and the series' name."""
    parser = argparse.ArgumentParser(description="Bring the patch series in step with btrm's modules.")
    parser.add_argument("--target", type=Path, help="a folder like site-packages; this Python's otherwise")
    try:
        dist = installed(parser.parse_args().target)
        site = Path(str(dist.locate_file("")))
        if found_series(site) is not None:
            raise RefusedError(f"the ms-swift in {site} is patched; a plain one is needed")
        put(SERIES / FIRST, new_files())
        series = {"version": dist.version, "files": told(site)}
    except RefusedError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    put(SERIES / SUMS, json.dumps(series, indent=1).encode() + b"\n")
    name_it(Series(SERIES).sha256)
    return 0


if __name__ == "__main__":
    sys.exit(main())
