"""The commands for an image that is there: try it, verify it, sign it, keep it. Everything is imported inside them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from btrm.config import ConfigError


def _image_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", metavar="NAME", help="this site's image, with its set-up, variables and binds")
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="a run's folder, code and caches, as its jobs have them"
    )
    parser.add_argument("--print", action="store_true", dest="only_print", help="print the command, run nothing")


def exec_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `exec` takes."""
    _image_arguments(parser)
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="[IMAGE] [--] CMD…", help="IMAGE without --site only"
    )


def execute(args: argparse.Namespace) -> int:
    """Run a command in an image; its exit status is the command's."""
    words = list(args.words)
    image = Path(words.pop(0)) if args.site is None and words[:1] not in ([], ["--"]) else None
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise ConfigError("btrm container exec IMAGE CMD…, or --site NAME CMD…: which command?")
    return _run_inside(args, image, words)


def shell_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `shell` takes."""
    _image_arguments(parser)
    parser.add_argument("image", type=Path, nargs="?", metavar="IMAGE", help="without --site only")


def shell(args: argparse.Namespace) -> int:
    """Open a shell in an image."""
    if args.site is not None and args.image is not None:
        raise ConfigError(f"{args.image} and --site {args.site}: one of the two")
    return _run_inside(args, args.image, ["sh", "-c", "command -v bash >/dev/null && exec bash || exec sh"])


def _run_inside(args: argparse.Namespace, image: Path | None, words: list[str]) -> int:
    from btrm.container.run import container_site, image_site, inside
    from btrm.launch.site import default_site

    site = image_site(image) if image is not None else container_site(args.site or default_site())
    found = inside(site, words, args.run)
    print(found, file=sys.stdout if args.only_print else sys.stderr, flush=True)
    return 0 if args.only_print else found.become()


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `verify` takes."""
    parser.add_argument("image", type=Path, nargs="?", metavar="IMAGE", help="a file or a sandbox (default: --site's)")
    parser.add_argument("--site", metavar="NAME", help="the sha256 in its [container] counts, too")
    parser.add_argument("--sha256", metavar="HEX", help="what the file's must be")
    parser.add_argument(
        "--lock", action="store_true", help="fail unless built from this btrm's own lock, base, patches"
    )
    parser.add_argument("--signed", action="store_true", help="fail unless signed by a key of your keyring")
    parser.add_argument("--key", action="append", default=[], metavar="FINGERPRINT", help="… by this one; repeatable")


def verify(args: argparse.Namespace) -> int:
    """Print a line a check; return 1 where one fails."""
    from btrm.container.run import container_site
    from btrm.container.verify import Demand, checks

    container = container_site(args.site).container if args.site else None
    image = args.image or (container and container.file)
    if image is None or not image.exists():
        raise ConfigError(
            f"{image or args.site or 'btrm container verify IMAGE'}: no such image, as a file or a folder"
        )
    named = {"--sha256": args.sha256, f"site {args.site}": container and container.sha256}
    sums = {who: sha256 for who, sha256 in named.items() if sha256}
    failed = 0
    for check in checks(image, Demand(sums, args.lock, args.signed, tuple(args.key))):
        print(check, flush=True)
        failed += check.level == "FAIL"
    return 1 if failed else 0


def sign_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `sign` takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("--keyidx", metavar="N", help="which key: its number in apptainer key list --secret")


def sign(args: argparse.Namespace) -> int:
    """Sign an image and say what it is now."""
    from btrm.container import signing

    sha256 = signing.sign(args.image, ["--keyidx", args.keyidx] if args.keyidx else [])
    print(f"{args.image}: signed; its sha256 is now {sha256}, jobs that were submitted with the unsigned one refuse it")
    return 0


def push_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `push` takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("reference", metavar="oras://HOST/NAME:TAG", help="apptainer registry login knows the password")
    parser.add_argument("--no-https", action="store_true", help="a registry of your own without TLS")


def push(args: argparse.Namespace) -> int:
    """Send an image to a registry and say how to have exactly it back."""
    from btrm.container import registry

    done = registry.push(args.image, args.reference, http=args.no_https)
    name = args.reference.rpartition(":")[0]
    exact = f"{name}@{done['digest']}" if done["digest"] else f"{args.reference} --sha256 {done['sha256']}"
    print(f"{args.reference}: sha256 {done['sha256']}\nthis one and no other: btrm container pull {exact} OUT.sif")
    return 0


def pull_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `pull` takes."""
    parser.add_argument("reference", metavar="oras://HOST/NAME[:TAG|@sha256:…]")
    parser.add_argument("out", type=Path, metavar="OUT.sif")
    parser.add_argument("--sha256", metavar="HEX", help="what the file's must be")
    parser.add_argument("--force", action="store_true", help="replace the file that is there")
    parser.add_argument("--no-https", action="store_true", help="a registry of your own without TLS")


def pull(args: argparse.Namespace) -> int:
    """Bring an image from a registry."""
    from btrm.container import registry

    found = registry.pull(args.reference, args.out, sha256=args.sha256, replacing=args.force, http=args.no_https)
    print(f"{args.out}: sha256 {found}")
    if args.sha256 is None and "@sha256:" not in args.reference:
        print(
            "btrm: a tag names whatever it names today; @sha256:… or --sha256 says which file it must be",
            file=sys.stderr,
        )
    return 0
