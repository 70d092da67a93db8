"""The first thing that runs in an image: `python -m btrm.launch.inside -m MODULE WORDS` looks, then becomes MODULE.

Only Python's own library is imported before it is known that the image has the packages that btrm needs.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import btrm

REQUIRES = "REQUIRES"  # beside a copy of the code: what btrm's own metadata asks for
_REFUSED = 78  # EX_CONFIG
_PARSERS = ("packaging.requirements", "pip._vendor.packaging.requirements")


def missing_packages(requires: Iterable[str]) -> list[str]:
    """Return what an environment lacks of a package's requirements, those of its extras left out."""
    parser = _parser()
    problems: list[str] = []
    for text in requires:
        if parser is None:  # only names can be looked at
            name = "".join(_until(text, " ;<>=!~[("))
            wanted, applies = None, "extra ==" not in text
        else:
            requirement = parser(text)
            name, wanted = requirement.name, requirement.specifier
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not applies:
            continue
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            problems.append(f"has no {name}")
            continue
        if wanted is not None and not wanted.contains(found, prereleases=True):
            problems.append(f"has {name} {found}, btrm needs {name}{wanted}")
    return problems


def _parser() -> Any:
    for name in _PARSERS:
        try:
            return importlib.import_module(name).Requirement
        except ImportError:
            continue
    return None


def _until(text: str, stops: str) -> Iterable[str]:
    for letter in text:
        if letter in stops:
            return
        yield letter


def main(argv: Sequence[str]) -> int:
    """Run the module named after -m; return 78 with a line that says what the image lacks where it cannot run."""
    listed = Path(btrm.__file__).parent.parent / REQUIRES
    problems = missing_packages(listed.read_text().splitlines()) if listed.is_file() else []
    if problems:
        print(f"btrm: image_unfit: the image {'; '.join(problems)} ({sys.executable})", file=sys.stderr)
        return _REFUSED
    sys.argv = list(argv[1:])
    runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
