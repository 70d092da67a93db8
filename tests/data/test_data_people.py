"""LLMBar, Auto-J, PandaLM and HelpSteer3: sets of two responses and what people said of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import data_rows
import pytest

from btrm.config import ConfigError
from btrm.data.items import Dropped, Query
from btrm.data.llmbar import subset_of
from btrm.data.pandalm import majority
from btrm.data.sources import Sift, check_query, iter_pairs
from btrm.records import PreferencePair


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sifted(
    dataset: str, path: Path, split: str = "test", **options: str
) -> tuple[list[PreferencePair], list[Dropped], dict[str, int]]:
    drops: list[Dropped] = []
    query = Query(split, data_files=(path,), options=options)
    sift = Sift("skip", on_drop=drops.append)
    return list(sift.pairs(check_query(dataset, query).read(query))), drops, dict(sift.counts)


def test_the_real_llmbar_has_a_hundred_natural_pairs(shared_data: Path) -> None:
    pairs, drops, counts = sifted("llmbar", shared_data / "llmbar/natural.json")
    assert counts == {"pairs": 100, "ties": 0} and not drops
    assert Counter(pair.preferred for pair in pairs) == {0: 42, 1: 58}
    assert {pair.meta["subset"] for pair in pairs} == {"Natural"}
    assert all(pair.context.startswith("Human: ") for pair in pairs)


def test_a_folder_says_which_part_of_llmbar_it_is(tmp_path: Path) -> None:
    for n, part in enumerate(("Natural", "Adversarial/Neighbor", "Adversarial/GPTInst", "CaseStudy/Base_9")):
        write(tmp_path / part / "dataset.json", data_rows.llmbar(n), data_rows.llmbar(n + 10))
    subsets = Counter(pair.meta["subset"] for pair in sifted("llmbar", tmp_path)[0])
    assert subsets == {"Natural": 2, "Neighbor": 2, "GPTInst": 2, "Base_9": 2}
    adversarial, _, counts = sifted("llmbar", tmp_path, subset="adversarial")
    assert {pair.meta["subset"] for pair in adversarial} == {"Neighbor", "GPTInst"}
    assert counts["dropped_subset_Natural"] == counts["dropped_subset_Base_9"] == 2
    assert subset_of("/data/natural/mine.jsonl:3") == "Natural" and subset_of("mine.jsonl:3") == ""
    with pytest.raises(ConfigError, match="subset='natrual': no such choice; did you mean natural"):
        sifted("llmbar", tmp_path, subset="natrual")


def test_the_real_pandalm_has_a_label_an_annotator(shared_data: Path) -> None:
    """The counts of each annotator's labels were made from the file with another program (jq)."""
    pairs, drops, counts = sifted("pandalm", shared_data / "pandalm/testset-v1.first-500.json")
    assert counts == {"pairs": 1500, "ties": 265} and not drops
    raw = json.loads((shared_data / "pandalm/testset-v1.first-500.json").read_text())
    side = {0: None, 1: 0, 2: 1}
    expected = [side[row[f"annotator{k}"]] for row in raw for k in (1, 2, 3)]
    assert [pair.preferred for pair in pairs] == expected
    assert len({pair.label_id for pair in pairs}) == 1500
    items = {pair.meta["item"]: pair for pair in pairs}
    assert len(items) == 500 and {pair.meta["majority"] for pair in pairs} == {"0", "1", "tie"}
    assert items["157"].responses[0] == "True"  # a spreadsheet's TRUE
    assert sum(not all(pair.responses) for pair in items.values()) == 8


def test_a_majority_is_more_than_half() -> None:
    assert majority([0, 0, 1]) == 0 and majority([None, 1, None]) is None
    with pytest.raises(ValueError, match="no label has a majority"):
        majority([0, 1, None])


def test_an_item_without_a_majority_says_so(tmp_path: Path) -> None:
    row = {**data_rows.pandalm(0), "annotator1": 0, "annotator2": 1, "annotator3": 2}
    pairs, *_ = sifted("pandalm", write(tmp_path / "p.jsonl", row))
    assert [pair.preferred for pair in pairs] == [None, 0, 1] and pairs[0].meta["majority"] == "none"
    assert [pair.label_id.partition("-")[2] for pair in pairs] == [f"annotator{k}.0" for k in (1, 2, 3)]


def test_one_label_an_item_is_what_most_said(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "pandalm/testset-v1.first-500.json"
    each, one = sifted("pandalm", path)[0], sifted("pandalm", path, labels="majority")[0]
    assert len(one) == 500 and len({pair.label_id for pair in one}) == 500
    sides = {"0": 0, "1": 1, "tie": None}
    assert [pair.preferred for pair in one] == [sides[pair.meta["majority"]] for pair in each[::3]]
    row = {**data_rows.pandalm(0), "annotator1": 0, "annotator2": 1, "annotator3": 2}
    _, drops, counts = sifted("pandalm", write(tmp_path / "p.jsonl", row), labels="majority")
    assert counts == {"dropped_no_majority": 1} and "no label has a majority" in drops[0].detail


def test_auto_j_keeps_ties_and_equal_responses(tmp_path: Path) -> None:
    rows = [data_rows.autoj(n) for n in range(6)] + [{**data_rows.autoj(2), "response 1": "x", "response 2": " x"}]
    pairs, drops, counts = sifted("autoj", write(tmp_path / "a.jsonl", *rows))
    assert counts == {"pairs": 7, "ties": 3} and not drops
    assert [pair.preferred for pair in pairs[:3]] == [0, 1, None]
    assert pairs[-1].responses == ("x", "x") and pairs[0].meta == {"benchmark": "autoj", "subset": "chitchat"}


def test_helpsteer3_goes_from_minus_three_to_three(tmp_path: Path) -> None:
    path = write(tmp_path / "h.jsonl", *(data_rows.helpsteer3(n) for n in range(7)))
    pairs = sifted("helpsteer3", path, "train")[0]
    assert [pair.preferred for pair in pairs] == [0, 0, 0, None, 1, 1, 1]
    assert [pair.meta["strength"] for pair in pairs] == [3, 2, 1, 0, 1, 2, 3]
    assert pairs[0].context == "Human: Ask 0\n\nAssistant: What?\n\nHuman: That"
    assert pairs[0].meta["individual"] == [2] and pairs[0].meta["subset"] == "code"
    sure = sifted("helpsteer3", path, "train", min_strength="2")[0]
    assert [pair.preferred for pair in sure] == [0, 0, None, None, None, 1, 1]


@pytest.mark.parametrize(
    ("dataset", "change", "problem"),
    [
        ("llmbar", {"label": 0}, "'label': expected 1, 2, got 0"),
        ("llmbar", {"label": True}, "'label': expected 1, 2, got True"),
        ("llmbar", {"output_1": None}, "'output_1': expected text, got None"),
        ("autoj", {"label": 3}, "'label': expected 0, 1, 2, got 3"),
        ("autoj", {"label": "two"}, "'label': expected 0, 1, 2, got 'two'"),
        ("pandalm", {"annotator2": 4}, "'annotator2': expected 0, 1, 2, got 4"),
        ("pandalm", {"response1": 7}, "'response1': expected text, got 7"),
        ("helpsteer3", {"overall_preference": 4}, "'overall_preference': expected -3, -2, -1, 0, 1, 2, 3, got 4"),
        ("helpsteer3", {"overall_preference": 0.5}, "'overall_preference': .* got 0.5"),
        ("helpsteer3", {"context": [{"role": "usr", "content": "x"}]}, "no such role 'usr'; did you mean user"),
        ("helpsteer3", {"individual_preference": 2}, "'individual_preference': expected a list, got 2"),
        ("helpsteer3", {"context": 3}, "expected text or a list of messages, got 3"),
    ],
)
def test_a_malformed_row_names_its_line(tmp_path: Path, dataset: str, change: dict[str, Any], problem: str) -> None:
    row = data_rows.MAKERS[dataset]
    path = write(tmp_path / "x.jsonl", row(1), {**row(2), **change}, row(3))
    split = "train" if dataset == "helpsteer3" else "test"
    with pytest.raises(ConfigError, match=rf"{path}:2: .*{problem}"):
        list(iter_pairs(dataset, split, data_files=[path]))
    whole, drops, counts = sifted(dataset, path, split)
    assert counts["dropped_malformed"] == 1 and drops[0].where == f"{path}:2" and whole


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"input": "a", "output1": "b", "output_2": "c", "label": 1})
    with pytest.raises(ConfigError, match=r"x.jsonl:1: no column 'output_1'; did you mean output"):
        list(iter_pairs("llmbar", "test", data_files=[path]))


@pytest.mark.parametrize("dataset", ["llmbar", "autoj", "pandalm", "trl", "swift_rm", "btrm"])
def test_what_is_on_no_hub_asks_for_files(dataset: str) -> None:
    with pytest.raises(ConfigError, match=f"{dataset}: is read from files; give data_files"):
        list(iter_pairs(dataset, "test"))
