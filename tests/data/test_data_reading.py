from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btrm.config import ConfigError
from btrm.data.items import Occurrences, ordered
from btrm.data.reading import count_rows, expand_files, read_source_rows

ROWS = [{"a": "é\u2028", "b": 1}, {"a": "two", "b": None}]


def write(path: Path) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    match path.name.partition(".")[2]:
        case "jsonl" | "json":
            path.write_text(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case "array.json":
            path.write_text(json.dumps(ROWS, indent=1))
        case _:
            pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.json", "x.array.json", "x.parquet"])
def test_every_format_gives_the_same_rows_with_their_place(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    found = list(read_source_rows((path,)))
    assert [row.value for row in found] == ROWS
    assert [row.where for row in found] == [f"{path}:1", f"{path}:2"]


def test_blank_lines_and_a_byte_order_mark_count_as_lines_but_not_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": 2}')
    assert [(row.where[-1], row.value) for row in read_source_rows((path,))] == [("1", {"a": 1}), ("4", {"a": 2})]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": ', "not JSON"),
        (b"[1]", "expected a JSON object, got list"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": NaN}', "not JSON"),
    ],
)
def test_a_bad_line_keeps_its_place_and_says_why(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    first, bad, last = read_source_rows((path,))
    assert (first.value, last.value) == ({"a": 1}, {"a": 3})
    assert bad.value is None and bad.where == f"{path}:2" and problem in bad.problem


def test_broken_files_are_named(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"a": 1}\n' * 1000)
    for name, content in [("x.jsonl.gz", whole[: len(whole) // 2]), ("y.jsonl.gz", b"plain"), ("z.parquet", b"plain")]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=str(path)):
            list(read_source_rows((path,)))
        with pytest.raises(ConfigError, match=str(path)):
            count_rows((path,))


def test_a_gzip_file_that_is_cut_off_names_the_first_line_that_cannot_be_read(tmp_path: Path) -> None:
    whole, path = gzip.compress(b'{"a": 1}\n' * 10) + gzip.compress(b'{"a": 2}\n' * 10), tmp_path / "x.jsonl.gz"
    path.write_bytes(whole[:-4])
    for read in (lambda: list(read_source_rows((path,))), lambda: count_rows((path,))):
        with pytest.raises(ConfigError, match=r"x\.jsonl\.gz:21: broken gzip file: Compressed file ended before"):
            read()


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.json.gz"])
@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (lambda whole: whole[:-9], "ended before"),
        (lambda _: b"[1]", "Not a gzipped file"),
        (lambda whole: whole[:10] + b"\xff" * 20 + whole[30:], "while decompressing"),
    ],
)
def test_a_broken_gzip_file_is_named_however_it_is_read(
    tmp_path: Path, name: str, broken: Callable[[bytes], bytes], problem: str
) -> None:
    path = tmp_path / name
    path.write_bytes(broken(gzip.compress(json.dumps([{"a": str(n)} for n in range(500)]).encode())))
    for read in (lambda: list(read_source_rows((path,))), lambda: count_rows((path,))):
        with pytest.raises(ConfigError, match=f"{name}:1: broken gzip file: .*{problem}"):
            read()


def test_a_line_that_breaks_off_shows_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * 100 + b'"}\r\n{"a": "' + b"x" * 100 + b'",\r\n<html>\n')
    _, cut, page = read_source_rows((path,))
    assert "at column 110: 'xxx" in cut.problem and cut.problem.endswith("xxx\",'")
    assert "at column 1: '<html>'" in page.problem


def test_a_parquet_file_with_a_damaged_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [f"text {n * n}" for n in range(3000)]}), path)
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(byte ^ 0x5A for byte in content[200:260])
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.parquet: broken Parquet file, after row 0: "):
        list(read_source_rows((path,)))


def test_what_json_has_no_values_for_is_text_in_a_parquet_file_too(tmp_path: Path) -> None:
    path, day = tmp_path / "x.parquet", datetime(2024, 1, 2)
    rows = [{"a": day, "b": Decimal("1.5"), "c": b"x", "d": [{"e": day.date()}], "f": 1, "g": None, "h": {"i": 2.5}}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    (row,) = read_source_rows((path,))
    plain = {"a": "2024-01-02T00:00:00", "b": "1.5", "c": "b'x'", "d": [{"e": "2024-01-02"}]}
    assert row.value == {**plain, "f": 1, "g": None, "h": {"i": 2.5}}


def test_folders_open_into_their_data_files(tmp_path: Path) -> None:
    (tmp_path / "d/b").mkdir(parents=True)
    (tmp_path / "d/train.parquet").mkdir()
    for name in ("d/z.jsonl", "d/b/a.jsonl.gz", "d/README.md", "d/train.parquet/0.parquet"):
        (tmp_path / name).touch()
    assert [path.name for path in expand_files((tmp_path / "d",))] == ["a.jsonl.gz", "0.parquet", "z.jsonl"]
    with pytest.raises(ConfigError, match=r"nothing: no such file\n.*README.md: expected files ending in .jsonl"):
        expand_files((tmp_path / "nothing", tmp_path / "d/README.md"))


@given(st.lists(st.integers(0, 40)))
def test_occurrences_count_like_a_counter(numbers: list[int]) -> None:
    seen, expected = Occurrences(bits=3), Counter[int]()  # so small that it must grow
    for number in numbers:
        # ids that collide in their low bits, and the id 0, which marks an empty slot
        assert seen.count(f"{number << 20:016x}") == expected[number]
        expected[number] += 1


@given(st.text(), st.text())
def test_the_order_of_responses_does_not_depend_on_the_label(chosen: str, rejected: str) -> None:
    if chosen != rejected:
        responses, preferred = ordered(chosen, rejected)
        assert responses[preferred] == chosen
        assert ordered(rejected, chosen) == (responses, 1 - preferred)
