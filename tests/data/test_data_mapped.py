from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from btrm.config import ConfigError
from btrm.data.sources import iter_pairs
from btrm.records import PreferencePair

PLAIN = {"context": "prompt", "response_0": "a", "response_1": "b", "preferred": "label"}


def pairs(tmp_path: Path, rows: list[dict[str, Any]], columns: dict[str, str]) -> list[PreferencePair]:
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(iter_pairs("mapped", "test", data_files=(path,), columns=columns))


def test_columns_are_taken_by_role(tmp_path: Path) -> None:
    row = {"prompt": "p", "a": "x", "b": "y", "label": 1, "by": "ann", "topic": "t"}
    found = pairs(tmp_path, [row, {**row, "label": None}], {**PLAIN, "annotator": "by", "meta": "topic+by"})
    assert (found[0].context, found[0].responses, found[0].preferred) == ("p", ("x", "y"), 1)
    assert found[0].label_id == f"{found[0].pair_id}-ann.0" and found[1].label_id.endswith("-ann.1")
    assert found[1].preferred is None and found[0].meta == {"topic": "t", "by": "ann"}


def test_chosen_and_rejected_stand_on_sides_that_say_nothing(tmp_path: Path) -> None:
    rows = [{"p": f"q{n}", "good": f"good {n}", "bad": f"bad {n}"} for n in range(400)]
    found = pairs(tmp_path, rows, {"context": "p", "chosen": "good", "rejected": "bad", "source": "mine"})
    assert all(p.responses[p.preferred or 0].startswith("good") for p in found)
    assert 150 < sum(p.preferred == 0 for p in found) < 250 and found[0].source == "mine"


def test_bad_mappings_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        pairs(tmp_path, [], {"contxt": "p", "chosen": "c", "preferred": "x"})
    message = str(error.value)
    assert "contxt: no such role; did you mean context" in message and "columns.context: required" in message
    assert "columns.rejected: required" in message and "columns.preferred: not beside chosen" in message


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"label": 7}, "'label': expected 0, 1, None, got 7"),
        ({"a": 3}, "'a': expected text, got 3"),
        ({"prompt": {}}, "'prompt': expected text"),
    ],
)
def test_a_bad_value_names_its_line(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    row = {"prompt": "p", "a": "x", "b": "y", "label": 0}
    with pytest.raises(ConfigError, match=rf"x.jsonl:2: {problem}"):
        pairs(tmp_path, [row, {**row, **change}], PLAIN)


@pytest.mark.parametrize(
    ("labels", "kind", "roles", "expected"),
    [
        ([0, 1, None], "int64", {}, [0, 1, None]),
        ([0.0, 1.0, None], "float64", {}, [0, 1, None]),
        ([2.0, 1.0, float("nan")], "float64", {"first": "1", "second": "2"}, [1, 0, None]),
        ([1.0, 2.0, 0.0], "float32", {"first": "1.0", "second": "2", "tie": "0"}, [0, 1, None]),
        ([True, False, None], "bool", {}, [1, 0, None]),
        ([True, False, None], "bool", {"first": "True", "second": "False"}, [0, 1, None]),
    ],
)
def test_a_parquet_label_is_the_same_in_any_number_type(
    tmp_path: Path, labels: list[Any], kind: str, roles: dict[str, str], expected: list[int | None]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    texts = {"prompt": ["p"] * 3, "a": ["x", "y", "z"], "b": ["u", "v", "w"], "by": pa.array([7.0, 8.0, 9.0])}
    pq.write_table(pa.table({**texts, "label": pa.array(labels, pa.type_for_alias(kind))}), path)
    columns = {**PLAIN, "annotator": "by", **roles}
    found = list(iter_pairs("mapped", "test", data_files=(path,), columns=columns))
    assert [pair.preferred for pair in found] == expected
    assert [pair.label_id.partition("-")[2] for pair in found] == ["7.0", "8.0", "9.0"]


@pytest.mark.parametrize("label", [0.5, 2.0, "1.0", "yes"])
def test_a_label_that_is_no_label_is_refused(tmp_path: Path, label: Any) -> None:
    with pytest.raises(ConfigError, match="'label': expected 0, 1, None, got"):
        pairs(tmp_path, [{"prompt": "p", "a": "x", "b": "y", "label": label}], PLAIN)


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x.jsonl:1: no column 'label'; did you mean labels"):
        pairs(tmp_path, [{"prompt": "p", "a": "x", "b": "y", "labels": 0}], PLAIN)


def test_pandalm_has_three_labels_a_pair_and_ties(shared_data: Path) -> None:
    path = shared_data / "pandalm/testset-v1.first-500.json"
    columns = {
        "context": "instruction+input",
        "response_0": "response1",
        "response_1": "response2",
        "preferred": "annotator1+annotator2+annotator3",
        "first": "1",
        "second": "2",
        "tie": "0",
    }
    with pytest.raises(ConfigError, match=r"testset.*:158: 'response1': expected text, got True"):
        list(iter_pairs("mapped", "test", data_files=(path,), columns=columns))  # as the file really has it
    found = list(iter_pairs("mapped", "test", data_files=(path,), columns=columns, on_error="skip"))
    raw = [row for row in json.loads(path.read_text()) if _comparable(row)]
    assert len(found) == 3 * len(raw) and len({p.label_id for p in found}) == len(found)
    assert sum(p.preferred is None for p in found) == sum(row[f"annotator{n}"] == 0 for row in raw for n in (1, 2, 3))
    assert [p.label_id.partition("-")[2] for p in found[:3]] == ["annotator1.0", "annotator2.0", "annotator3.0"]


def _comparable(row: dict[str, Any]) -> bool:
    first, second = row["response1"], row["response2"]
    texts = isinstance(first, str) and isinstance(second, str)
    return texts and bool(first.strip() and second.strip() and first.strip() != second.strip())


def test_llmbar_reads_by_mapping(shared_data: Path) -> None:
    columns = {"context": "input", "response_0": "output_1", "response_1": "output_2", "preferred": "label",
               "first": "1", "second": "2"}  # fmt: skip
    found = list(iter_pairs("mapped", "test", data_files=(shared_data / "llmbar/natural.json",), columns=columns))
    assert len(found) == 100 and {p.preferred for p in found} == {0, 1}
