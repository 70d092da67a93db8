"""`btrm container dockerfile`: the image for those without Apptainer, written from the same parts.

Base, lock, patches and scripts are the very files that the definition takes; variables and labels are read out of it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

import btrm
from btrm.config import ConfigError
from btrm.container.record import Own, record
from btrm.container.variants import Image, get_image, variants
from btrm.launch.snapshot import code_digest
from btrm.plugins import shipped
from btrm.runs import sha256_file
from btrm.train.swift_series import SERIES

_EXPORT = re.compile(r'export (?P<name>\w+)="?(?:\$\{(?P=name):-)?(?P<value>[^"}]*)\}?"?')
_PLACE = re.compile(r"\{\{ (\w+) \}\}")
_PER_USER = "-$(id -u)"  # a container has one user, and an ENV runs no command


def dockerfile(image: Image) -> str:
    """Return the text for a variant; raise ConfigError for one that stands on no registry's image."""
    if image.base is None:
        raise ConfigError(f"variant {image.name}: stands on no registry's image, as docker wants; one of {_known()}")
    return "\n\n".join("\n".join(stage) for stage in (_head(image), *_stages(image, image.base))) + "\n"


def _known() -> str:
    return ", ".join(image.name for image in variants().images.values() if image.base)


def section(name: str) -> list[str]:
    """Return the lines of a section of the definition's last stage, without comments."""
    text = (shipped("containers") / "btrm.def").read_text()
    body = text.rpartition(f"\n%{name}\n")[2].partition("\n%")[0]
    return [line.strip() for line in body.splitlines() if line.strip() and not line.strip().startswith("#")]


def variables() -> Iterator[tuple[str, str]]:
    """Yield (name, value) of what the definition's %environment sets where nothing else has, as an ENV has it."""
    for line in section("environment"):
        found = _EXPORT.fullmatch(line)
        assert found is not None, f"btrm.def: %environment: {line!r} is not NAME=VALUE or NAME=${{NAME:-VALUE}}"
        yield found["name"], found["value"].replace(_PER_USER, "")


def labels(image: Image, digest: str) -> Iterator[tuple[str, str]]:
    """Yield (label, value) as the definition's %labels; what only a build knows is one of its arguments."""
    known = {
        "variant": image.name,
        "version": btrm.__version__,
        "revision": "$REVISION",
        "code": "$CODE",
        "lock_sha256": sha256_file(image.packages.path),
        "patches_sha256": SERIES,
        "base_digest": digest,
        "driver": str(image.driver),
    }
    for line in section("labels"):
        label, _, value = line.partition(" ")
        yield label, _PLACE.sub(lambda found: known[found[1]], value)


def _head(image: Image) -> list[str]:
    name = f"btrm:{image.name}"
    return [
        "# syntax=docker/dockerfile:1",
        f"# Written by `btrm container dockerfile --variant {image.name}` from what the image is made of: btrm.def,",
        "# variants.toml, the lock, the patches. Edit those. For docker, podman and devcontainers:",
        "#",
        f'#   docker build -f containers/Dockerfile --build-arg REVISION="$(git rev-parse HEAD)" -t {name} .',
        f'#   docker run --rm -it --gpus all --user "$(id -u):$(id -g)" -v "$PWD:$PWD" -w "$PWD" {name} bash',
        "#",
        "# Without a network: --build-context wheels=DIR takes what `btrm container wheels` has put there, and a base",
        "# that has the packages of system.sh leaves apt nothing to do. --build-arg CODE=… is for the label alone: the",
        "# record in the image, /opt/btrm/image.json, has the digest of btrm's code in any case.",
        "#",
        "# btrm's own tests hold this file against the definition and check its shell; they do not run its build.",
    ]


def _stages(image: Image, base: str) -> Iterator[list[str]]:
    python, lock = f"python{image.packages.python}", f"containers/locks/{image.packages.name}.lock"
    digest, index = base.partition("@")[2], image.packages.torch_index
    yield [
        f"FROM {base} AS base",
        "COPY containers/system.sh /opt/btrm/system.sh",
        f"RUN sh /opt/btrm/system.sh {python} \\",
        "    && rm -r /opt/btrm",
    ]
    yield [
        "FROM base AS download",
        f"COPY {lock} /opt/packages.lock",
        f"RUN {python} -m venv /opt/pip \\",
        "    && /opt/pip/bin/python -m pip --disable-pip-version-check --no-cache-dir --quiet download \\",
        *([f"        --extra-index-url {index} \\"] if index else []),
        "        --no-deps --require-hashes --dest /opt/wheels --requirement /opt/packages.lock",
    ]
    yield [
        "# A stage of its own, so that --build-context can stand in for it.",
        "FROM scratch AS wheels",
        "COPY --from=download /opt/wheels /",
    ]
    yield [
        "FROM base AS packages",
        "WORKDIR /opt/btrm",
        f"COPY {lock} packages.lock",
        "COPY containers/patches patches",
        "COPY containers/packages.sh build/packages.sh",
        "RUN --mount=type=bind,from=wheels,target=/mnt \\",
        f'    echo "{sha256_file(image.packages.path)}  packages.lock" > build/sums \\',
        "    && sha256sum --check --quiet build/sums \\",
        f"    && sh build/packages.sh {python} packages.lock /mnt venv \\",
        "    && venv/bin/python patches/apply.py \\",
        "    && { venv/bin/python -m compileall -q -j 0 venv/lib > /dev/null || true; } \\",
        "    && rm -r build",
    ]
    yield ["FROM base AS final", "COPY --from=packages /opt/btrm /opt/btrm", "WORKDIR /opt/btrm"]
    yield [f"ENV {name}={_quoted(value)}" for name, value in variables()]
    yield [
        "# Whoever runs it may have no home in it, and no folder of their own but the one for caches.",
        "ARG REVISION=",
        "ARG CODE=",
        "RUN --mount=type=bind,target=/mnt \\",
        "    venv/bin/python -m pip --disable-pip-version-check --no-cache-dir --quiet install \\",
        "        --root-user-action ignore --no-index --no-deps --no-build-isolation --compile /mnt \\",
        f'    && venv/bin/python -m btrm.container.dockerfile {image.name} "$REVISION" > image.json \\',
        "    && dpkg-query --show > system.txt \\",
        "    && venv/bin/python -m btrm.container.selftest \\",
        '    && rm -rf "$XDG_CACHE_HOME" \\',
        '    && install -d -m 1777 "$XDG_CACHE_HOME"',
    ]
    told = [f"{label}={_quoted(value)}" for label, value in labels(image, digest)]
    yield [f"LABEL {told[0]} \\", *(f"      {label} \\" for label in told[1:-1]), f"      {told[-1]}"]
    yield ['CMD ["btrm", "--help"]']


def _quoted(value: str) -> str:
    """Return a value as docker reads it: its own variables are filled in."""
    return json.dumps(value) if re.search(r"[^\w./:@-]", value) else value


def main(words: list[str]) -> None:
    """Print an image's record, inside of the build that the Dockerfile is: VARIANT REVISION."""
    image = get_image(words[0])
    assert image.base is not None
    own = Own(btrm.__version__, code_digest(), words[1] or None)
    print(json.dumps(record(image, own, image.base.partition("@")[2]), indent=1, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1:])
