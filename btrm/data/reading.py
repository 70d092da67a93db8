"""Raw rows from files and from the hub, streamed, each with the place where it stands."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import orjson

from btrm.config import ConfigError
from btrm.data.parquet_file import count_parquet, read_parquet
from btrm.hub import HubItem, is_offline, snapshot

BUFFER = 1 << 20  # bytes a system call; the default of 8 KiB is two lines
_BOM = b"\xef\xbb\xbf"  # some editors put it at the start of a file
_BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)
_SHOWN = 40  # characters of a line that is not JSON
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


class SourceRow(NamedTuple):
    """One raw row and where it stands (`file:line`); `value` is None where `problem` says why it could not be read."""

    where: str
    value: dict[str, Any] | None
    problem: str = ""


def expand_files(references: Mapping[str, Path] | tuple[Path, ...]) -> tuple[Path, ...]:
    """Open folders into their data files, sorted by name; raise ConfigError for what is missing or of no known kind."""
    paths = references.values() if isinstance(references, Mapping) else references
    found: list[Path] = []
    problems: list[str] = []
    for path in paths:
        inside = [path]
        if path.is_dir():  # a folder in it may be called train.parquet: its parts are the files
            inside = sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES) and p.is_file())
        if not path.exists():
            problems.append(f"{path}: no such file")
        elif not inside or not all(p.name.endswith(SUFFIXES) for p in inside):
            problems.append(f"{path}: expected files ending in {', '.join(SUFFIXES)}")
        found += inside
    if problems:
        raise ConfigError("\n".join(problems))
    return tuple(found)


def read_source_rows(files: tuple[Path, ...]) -> Iterator[SourceRow]:
    """Stream the rows of data files, bad lines included with their problem."""
    for path in files:
        if path.name.endswith(".parquet"):
            yield from (SourceRow(f"{path}:{n}", row) for n, row in enumerate(read_parquet(path), 1))
        elif _is_array(path):
            yield from _array_rows(path)
        else:
            yield from _jsonl_rows(path)


def count_rows(files: tuple[Path, ...]) -> int:
    """Return how many rows data files hold, bad ones included; of Parquet and JSONL without parsing them."""
    return sum(map(_count, files))


def _count(path: Path) -> int:
    if path.name.endswith(".parquet"):
        return count_parquet(path)
    if _is_array(path):
        return sum(1 for _ in _array_rows(path))
    with _whole_gzip(path), _open_binary(path) as file:
        return sum(not line.isspace() for line in file)


def hub_rows(item: HubItem, config: str | None, split: str) -> Iterator[SourceRow]:
    """Stream a split from the hub, or from its cache where HF_HUB_OFFLINE is set.

    `datasets` is imported here, so that files need it not.
    """
    folder = snapshot(item, os.environ) if is_offline(os.environ) else None
    exported = None if folder is None else folder / (config or "default") / split
    rows = _exported(exported) if exported and exported.is_dir() else _loaded(item, folder, config, split)
    for index, value in enumerate(rows):
        yield SourceRow(f"{item.name}[{split}]:{index + 1}", value)


def _exported(folder: Path) -> Iterator[dict[str, Any]]:
    """Read the layout of the hub's Parquet branch, CONFIG/SPLIT/0000.parquet, of which `datasets` makes no configs."""
    for row in read_source_rows(expand_files((folder,))):
        assert row.value is not None, row
        yield row.value


def _loaded(item: HubItem, folder: Path | None, config: str | None, split: str) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise ConfigError(f"{item.name}: the hub needs `pip install btrm[data]`; or give --data-files") from None
    place = str(folder or item.name)
    revision = None if folder or item.revision == "main" else item.revision
    try:
        rows = cast(Any, datasets).load_dataset(place, config, split=split, revision=revision, streaming=True)
    except (OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        hint = "without internet: btrm prefetch elsewhere, or --data-files"
        raise ConfigError(f"{item.name}: not to be had from the hub ({first}); {hint}") from error
    yield from map(dict, rows)


def _open_binary(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):  # buffered here, since GzipFile hands out lines one Python call at a time
        return io.BufferedReader(cast(Any, gzip.open(path, "rb")), BUFFER)
    return path.open("rb", buffering=BUFFER)


@contextmanager
def _whole_gzip(path: Path) -> Generator[None]:
    """Turn what a broken gzip file raises into a ConfigError with the line up to which it can be read."""
    try:
        yield
    except _BROKEN_GZIP as error:
        raise ConfigError(f"{path}:{_readable_lines(path) + 1}: broken gzip file: {error}") from None


def _readable_lines(path: Path) -> int:
    """Count the lines before the place where a gzip file breaks; a large buffer would lose its last ones."""
    number = 0
    with suppress(*_BROKEN_GZIP), gzip.open(path, "rb") as file:
        for _ in file:
            number += 1
    return number


def _is_array(path: Path) -> bool:
    """Say whether a .json file is one array; OpenAI's .json files hold one object a line, as .jsonl does."""
    if not path.name.endswith((".json", ".json.gz")):
        return False
    with _whole_gzip(path), _open_binary(path) as file:
        return file.read(4096).removeprefix(_BOM).lstrip()[:1] == b"["


def _jsonl_rows(path: Path) -> Iterator[SourceRow]:
    prefix = f"{path}:"
    with _whole_gzip(path), _open_binary(path) as file:
        for number, line in enumerate(file, 1):
            if not line.isspace():
                yield _parse_line(f"{prefix}{number}", line.removeprefix(_BOM) if number == 1 else line)


def _parse_line(where: str, line: bytes) -> SourceRow:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return SourceRow(where, None, _not_json(line.rstrip(), error))
    if not isinstance(value, dict):
        return SourceRow(where, None, f"expected a JSON object, got {type(value).__name__}")
    return SourceRow(where, cast("dict[str, Any]", value))


def _not_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    """Say where a line breaks off or goes wrong, and how it reads up to there."""
    text = line.decode("utf-8", "replace")
    at = min(error.pos, len(text))  # the parser counts the end of the line as a new one
    shown = text[max(0, at - _SHOWN) : at + 1] if at else text[:_SHOWN]
    return f"not JSON: {error.msg} at column {at + 1}: {shown!r}"


def _array_rows(path: Path) -> Iterator[SourceRow]:
    """Read a JSON array whole; places are element numbers."""
    with _whole_gzip(path), _open_binary(path) as file:
        try:
            values = orjson.loads(file.read().removeprefix(_BOM))
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, list):
        raise ConfigError(f"{path}: expected a JSON array of objects, got {type(values).__name__}")
    for number, value in enumerate(cast("list[Any]", values), 1):
        where = f"{path}:{number}"
        if isinstance(value, dict):
            yield SourceRow(where, cast("dict[str, Any]", value))
        else:
            yield SourceRow(where, None, f"expected a JSON object, got {type(value).__name__}")
