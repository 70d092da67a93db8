"""A file's data set by its columns and values."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import data_rows
import pytest
from data_rows import MAKERS, said

from btrm.config import ConfigError
from btrm.data.build_dataset import main as build
from btrm.data.detect import SIGNATURES, detect, resolve
from btrm.data.pairs import PairsConfig
from btrm.data.sources import SOURCES, iter_pairs
from btrm.records import PreferencePair, write_pairs


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_every_signature_is_of_a_source_and_every_source_with_files_has_one() -> None:
    assert set(SIGNATURES) == set(SOURCES) - {"toy", "mapped"}
    assert set(MAKERS) == set(SIGNATURES) - {"btrm"}


@pytest.mark.parametrize("dataset", MAKERS)
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_each_set_is_found_in_each_kind_of_file(tmp_path: Path, dataset: str, ending: str) -> None:
    rows, path = [MAKERS[dataset](n) for n in range(5)], tmp_path / f"data{ending}"
    if ending == ".jsonl":
        write(path, *rows)
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    assert detect((path,)) == dataset
    split = (SOURCES[dataset].splits or ("test",))[0]
    assert next(iter_pairs("auto", split, data_files=[path])).context


def test_real_files_are_found(shared_data: Path) -> None:
    found = {
        "llmbar/natural.json": "llmbar",
        "pandalm/testset-v1.first-500.json": "pandalm",
        "hh-rlhf/harmless-base.half.jsonl.gz": "anthropic_hh",
    }
    assert {name: detect((shared_data / name,)) for name in found} == found


def test_btrms_own_pairs_are_found(tmp_path: Path) -> None:
    pair = PreferencePair.make("c", ("a", "b"), 0, source="mine", split="test", meta={"x": 1})
    write_pairs(tmp_path / "test.pairs.parquet", [pair])
    assert list(iter_pairs("auto", "test", data_files=[tmp_path / "test.pairs.parquet"])) == [pair]


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({**data_rows.skywork(0), "source": "mine"}, "skywork_reward or trl"),
        ({k: v for k, v in data_rows.ultrafeedback(1).items() if "prompt" not in k}, "ultrafeedback_binarized or trl"),
    ],
)
def test_where_several_are_possible_all_are_named(tmp_path: Path, row: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=f"x.jsonl: may be {names}; say which with --dataset NAME"):
        detect((write(tmp_path / "x.jsonl", row),))


@pytest.mark.parametrize(
    ("row", "dataset"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c", "subset": "mine"}, "trl"),
        ({"chosen": "The sky is blue", "rejected": "The sky is red"}, "trl"),
        ({"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": " b", "rejected": " c"}, "trl"),
        ({"prompt": "a", "chosen": [said("user", "a")], "rejected": [said("user", "a")], "source": "x"}, "trl"),
    ],
)
def test_trl_is_what_is_nothing_more_special(tmp_path: Path, row: dict[str, Any], dataset: str) -> None:
    assert detect((write(tmp_path / "x.jsonl", row),)) == dataset


def test_a_few_odd_rows_do_not_hide_the_format(tmp_path: Path) -> None:
    rows = [data_rows.llmbar(n) for n in range(6)]
    assert detect((write(tmp_path / "x.jsonl", "not json", {"other": 1}, *rows),)) == "llmbar"


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (({"a": 1, "b": 2},), "x.jsonl: no known data set has these columns: a, b. Known: btrm, .*--dataset mapped"),
        (("{", "["), "2 of 2 rows looked at cannot be read; the first stands at .*x.jsonl:1: not JSON"),
        (("{",), "its only row cannot be read; the first stands at .*x.jsonl:1: not JSON"),
        (("{", {"a": 1}), "has these columns: a. .*\n1 of 2 rows looked at cannot be read; .*x.jsonl:1: not JSON"),
        (({"chosen": "a", "rejected": "b", "subset": ["x"], "prompt": 1},), "no known data set has these columns"),
        (({"chosen": ["a"], "rejected": ["b"], "subset": {"x": 1}},), "no known data set has these columns"),
        ((), "holds no rows"),
        (
            ({"messages": [], "pair_id": "p", "label_id": "l", "side": 0, "preferred_side": 0},),
            "holds pointwise rows, one response each; give the pairs.parquet",
        ),
    ],
)
def test_what_is_nothing_known_says_what_to_do(tmp_path: Path, rows: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){problem}"):
        detect((write(tmp_path / "x.jsonl", *rows),))


def test_auto_needs_files_and_a_name_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dataset auto: is found from files; give data_files"):
        resolve("auto", ())
    assert resolve("llmbar", ()) == "llmbar"
    with pytest.raises(ConfigError, match=r"nothere\.jsonl: no such file"):
        resolve("auto", (tmp_path / "nothere.jsonl",))


def test_a_stage_records_what_was_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "x.jsonl", *(data_rows.llmbar(n) for n in range(3)))
    config = PairsConfig.build({"dataset": "auto", "data_files": {"test": str(path)}}, "pairs")
    assert (config.dataset, config.prompt, config.chosen_splits) == ("llmbar", "hh_score100_v1", ("test",))
    assert "dataset auto: llmbar, by the columns of x.jsonl" in caplog.text
    toy = PairsConfig.build({"n_pairs": {"train": 1, "validation": 1, "test": 1}}, "pairs")
    again = toy.override(["dataset=auto", f"data_files=test={path}"])
    assert (again.dataset, again.prompt, again.splits) == ("llmbar", "hh_score100_v1", ())
    for values in ({"dataset": "auto"}, {"dataset": "auto", "data_files": {"test": str(tmp_path / "no.jsonl")}}):
        with pytest.raises(ConfigError, match="dataset auto: "):
            PairsConfig.build(values, "pairs")


def test_the_builder_takes_auto(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.jsonl", *(data_rows.autoj(n) for n in range(3)))
    out = tmp_path / "rows.jsonl"
    words = ["--dataset", "auto", "--split", "test", "--data-files", str(path), "--out", str(out)]
    assert build(words) == 0 and len(out.read_text().splitlines()) == 4
    assert json.loads(capsys.readouterr().out)["ties"] == 1
