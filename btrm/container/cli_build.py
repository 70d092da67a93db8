"""The commands that make an image: lock, wheels, build. Everything is imported inside them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btrm.container.variants import Lock


def lock_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `lock` takes."""
    parser.add_argument("name", nargs="*", help="which locks (default: all)")
    parser.add_argument("--upgrade", action="store_true", help="take newer versions than the lock has")
    parser.add_argument("--find-links", action="append", default=[], metavar="DIR|URL", help="for uv; may be repeated")
    parser.add_argument("--check", action="store_true", help="write nothing: are the locks whole, and to be had?")


def lock(args: argparse.Namespace) -> int:
    """Resolve locks."""
    from btrm.container.lock import write_lock
    from btrm.container.variants import get_lock, variants

    locks = [get_lock(name) for name in args.name or variants().locks]
    if args.check:
        return _check_locks(locks, args.find_links)
    words = [word for place in args.find_links for word in ("--find-links", place)]
    for one in locks:
        print(write_lock(one, upgrade=args.upgrade, words=words), flush=True)
    return 0


def _check_locks(locks: Sequence[Lock], find_links: Sequence[str]) -> int:
    from btrm.container.lock_check import check_all

    failed = 0
    for check in check_all(locks, find_links):
        print(check, flush=True)
        failed += check.level == "FAIL"
    return 1 if failed else 0


def wheels_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `wheels` takes."""
    _variant(parser)
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="default: a folder in ~/.cache/btrm")


def wheels(args: argparse.Namespace) -> int:
    """Fill a folder with the files of a lock."""
    from btrm.container.variants import get_image
    from btrm.container.wheels import fill, wheel_folder

    packages = get_image(args.variant).packages
    folder = args.folder or wheel_folder(packages)
    print(f"{folder}: {len(fill(packages, folder))} files fetched, all there by their hashes")
    return 0


def base_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `base` takes."""
    _variant(parser)
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("--mirror", metavar="URL", help="the Debian mirror of the cpu variant's base")


def base(args: argparse.Namespace) -> int:
    """Build a base."""
    from btrm.container.bases import build_base
    from btrm.container.variants import get_image
    from btrm.images import image_digest

    made = build_base(get_image(args.variant), args.image, args.mirror)
    print(f"{made}@sha256:{image_digest(str(made))}")
    return 0


def build_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `build` takes."""
    _variant(parser)
    parser.add_argument("image", type=Path, nargs="?", metavar="IMAGE", help="default: btrm-VARIANT.sif")
    parser.add_argument("--sandbox", action="store_true", help="a folder to try things in; it has no digest")
    parser.add_argument("--force", action="store_true", help="replace the image that is there")
    parser.add_argument(
        "--base", metavar="FILE|NAME@sha256:…", help="another base: an image's file (FILE@sha256:… is checked)"
    )
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="the folder that `btrm container wheels` fills")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where packages of earlier builds are kept")
    parser.add_argument("--btrm", type=Path, metavar="WHEEL|CHECKOUT", help="the btrm to install (default: this one)")
    parser.add_argument("--mirror", metavar="URL", help="the Debian mirror of the cpu variant's base")
    parser.add_argument(
        "--apptainer", action="append", default=[], metavar="WORD", help="one more word for apptainer build"
    )


def build(args: argparse.Namespace) -> int:
    """Build an image."""
    from btrm.config import ConfigError
    from btrm.container.build import Build
    from btrm.container.build import build as make
    from btrm.container.run_build import record_path
    from btrm.container.variants import get_image

    image = get_image(args.variant)
    target = args.image or Path(f"btrm-{image.name}{'' if args.sandbox else '.sif'}")
    if target.exists() and not args.force:
        raise ConfigError(f"{target}: there already; --force replaces it")
    places = {name: getattr(args, name) for name in ("base", "wheels", "cache", "btrm", "mirror")}
    made = make(Build(image, target, args.sandbox, apptainer=args.apptainer, **places))
    print(f"{made}\n{record_path(made).read_text()}now: btrm container verify {made}")
    return 0


def dockerfile_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `dockerfile` takes."""
    _variant(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there (default: print it)")
    parser.add_argument("--check", action="store_true", help="write nothing: is the file, or the shipped one, in step?")


def dockerfile(args: argparse.Namespace) -> int:
    """Write a Dockerfile, or compare one."""
    from btrm.container.dockerfile import dockerfile as text
    from btrm.container.variants import get_image
    from btrm.plugins import shipped

    found, out = text(get_image(args.variant)), args.out
    if args.check:
        path = out or shipped("containers") / "Dockerfile"
        same = path.is_file() and path.read_text() == found
        told = "in step" if same else f"not in step; btrm container dockerfile --variant {args.variant} --out {path}"
        print(f"{path}: {told}")
        return 0 if same else 1
    if out is None:
        print(found, end="")
    else:
        out.write_text(found)
    return 0


def squash_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `squash` takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT.sqsh", help="default: beside the image")
    parser.add_argument("--force", action="store_true", help="replace the file that is there")


def squash(args: argparse.Namespace) -> int:
    """Write an image's file system by itself."""
    from btrm.container.squash import default_target
    from btrm.container.squash import squash as write

    out = args.out or default_target(args.image)
    print(f"{out}: sha256 {write(args.image, out, replacing=args.force)}")
    return 0


def _variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", default="cu13", metavar="NAME", help="cu13 (default), cu12 or cpu")
