"""Benchmarks in their own schemas: contexts, groups, drops with a reason, and rows that are not what they should be."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from btrm.config import ConfigError
from btrm.data import rewardbench, rewardbench2, rm_bench
from btrm.data.groups import crossed, matched
from btrm.data.items import Dropped, Query
from btrm.data.reading import SourceRow
from btrm.data.sources import SOURCES, Sift, check_query
from btrm.metrics.official_groups import RM_BENCH_PROMPTS
from btrm.metrics.official_rewardbench import REWARDBENCH2_PROMPTS, REWARDBENCH_PROMPTS
from btrm.records import PreferencePair

RB = {
    "prompt": "Hi?", "chosen": "Yes.", "chosen_model": "a", "rejected": "No.", "rejected_model": "b",
    "subset": "alpacaeval-easy", "id": 30,
}  # fmt: skip
RB2 = {
    "id": "0", "prompt": "Hi?", "chosen": ["c"], "rejected": ["x", "y", "z"], "num_correct": 1, "num_incorrect": 3,
    "total_completions": 4, "models": ["m"], "subset": "Math", "additional_metadata": None,
}  # fmt: skip
TIED = {**RB2, "id": "tied:4", "chosen": ["c", "d", "e"], "rejected": ["x", "y"], "subset": "Ties"}
RM = {"id": 8, "prompt": "Hi?", "chosen": ["a", "b", "c"], "rejected": ["x", "y", "z"], "domain": "safety-refuse"}
SAID = {"llm_name": "m", "answer": "Yes."}
ASKED = [
    {"role": "user", "content": "Hi?", "language": "English"},
    {"role": "assistant", "content": "Hello.", "language": "English"},
    {"role": "user", "content": "And?", "language": "English"},
]
RMB_PAIR = {
    "pair_uid": "9118", "conversation_input": ASKED, "chosen": SAID, "reject": {"llm_name": "n", "answer": "No."},
    "category_path": "Pairwise_set/Helpfulness/Brainstorming/Problem Solving",
}  # fmt: skip
RMB_BON = {
    "bon_uid": "3294", "conversation_input": ASKED, "bon_best": SAID,
    "loser_list": [{"llm_name": "n", "answer": "No."}, {"llm_name": "o", "answer": "Never."}],
    "category_path": "BoN_set/Harmlessness/S1",
}  # fmt: skip
JB = {
    "pair_id": "81ec57f2", "original_id": "10646", "source": "mmlu-pro-law", "question": "Why?",
    "response_model": "gpt-4o-2024-05-13", "response_A": "Because.", "response_B": "So.", "label": "B>A",
}  # fmt: skip


def sifted(
    folder: Path, dataset: str, *rows: Any, name: str = "rows.jsonl", on_error: str = "raise", **options: str
) -> tuple[list[PreferencePair], list[Dropped]]:
    path = folder / name
    path.write_text(json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows))
    drops: list[Dropped] = []
    query = Query("test", data_files=(path,), options=options)
    sift = Sift(on_error, on_drop=drops.append)
    return list(sift.pairs(check_query(dataset, query).read(query))), drops


def _indices(pairs: list[PreferencePair]) -> list[tuple[int, int]]:
    return [(pair.meta["chosen_index"], pair.meta["rejected_index"]) for pair in pairs]


def test_rewardbench_has_one_pair_a_row(tmp_path: Path) -> None:
    pairs, drops = sifted(tmp_path, "rewardbench", RB)
    assert [pair.context for pair in pairs] == ["Human: Hi?"] and not drops
    assert pairs[0].responses[pairs[0].preferred or 0] == "Yes."
    assert pairs[0].meta == {
        "section": "Chat", "chosen_model": "a", "rejected_model": "b", "benchmark": "rewardbench",
        "subset": "alpacaeval-easy", "group": "30", "group_size": 1, "chosen_index": 0, "rejected_index": 0,
    }  # fmt: skip


def test_rewardbench2_asks_about_the_chosen_response_beside_each_other(tmp_path: Path) -> None:
    pairs, _ = sifted(tmp_path, "rewardbench2", RB2)
    assert _indices(pairs) == [(0, 0), (0, 1), (0, 2)]
    assert {pair.meta["group_size"] for pair in pairs} == {3}
    assert [pair.responses[1 - (pair.preferred or 0)] for pair in pairs] == ["x", "y", "z"]


def test_every_response_of_a_ties_prompt_stands_in_a_pair(tmp_path: Path) -> None:
    pairs, _ = sifted(tmp_path, "rewardbench2", TIED)
    assert _indices(pairs) == [(0, 0), (1, 1), (2, 0)]
    pairs, _ = sifted(tmp_path, "rewardbench2", TIED, pairs="all")
    assert _indices(pairs) == [(i, j) for i in range(3) for j in range(2)]


@pytest.mark.parametrize(("n_chosen", "n_rejected"), [(1, 1), (1, 5), (5, 1), (3, 4), (7, 7)])
def test_matched_pairs_are_the_fewest_in_which_all_stand(n_chosen: int, n_rejected: int) -> None:
    pairs = list(matched(n_chosen, n_rejected))
    assert len(pairs) == len(set(pairs)) == max(n_chosen, n_rejected)
    assert {i for i, _ in pairs} == set(range(n_chosen)) and {j for _, j in pairs} == set(range(n_rejected))
    assert set(pairs) <= set(crossed(n_chosen, n_rejected))


def test_without_responses_of_one_kind_nothing_is_compared() -> None:
    assert list(matched(0, 3)) == list(matched(3, 0)) == list(crossed(0, 3)) == []


def test_rm_bench_has_the_matrix_of_styles(tmp_path: Path) -> None:
    pairs, _ = sifted(tmp_path, "rm_bench", RM)
    assert _indices(pairs) == [(i, j) for i in range(3) for j in range(3)]
    assert pairs[0].meta["group"] == "safety-refuse/8" and pairs[0].meta["subset"] == "safety-refuse"
    pairs, _ = sifted(tmp_path, "rm_bench", RM, pairs="matched")
    assert _indices(pairs) == [(0, 0), (1, 1), (2, 2)]


def test_rm_bench_takes_the_domain_of_a_file_from_its_name(tmp_path: Path) -> None:
    row = {key: value for key, value in RM.items() if key != "domain"} | {"subset": "alpacaeval"}
    pairs, _ = sifted(tmp_path, "rm_bench", row, name="chat_filtered.json")
    assert {pair.meta["subset"] for pair in pairs} == {"chat"}
    with pytest.raises(ConfigError, match="no column 'domain'"):
        sifted(tmp_path, "rm_bench", row, name="other.json")


def test_rmb_reads_both_sets_of_one_folder(tmp_path: Path) -> None:
    pairs, _ = sifted(tmp_path, "rmb", RMB_PAIR, RMB_BON)
    assert pairs[0].context == "Human: Hi?\n\nAssistant: Hello.\n\nHuman: And?"
    assert [(p.meta["part"], p.meta["group"], p.meta["group_size"]) for p in pairs] == [
        ("helpfulness pairwise", "pairwise/9118", 1),
        ("harmlessness best-of-N", "best-of-N/3294", 2),
        ("harmlessness best-of-N", "best-of-N/3294", 2),
    ]
    assert pairs[0].meta["subset"] == "Helpfulness/Brainstorming/Problem Solving"
    pairs, drops = sifted(tmp_path, "rmb", RMB_PAIR, RMB_BON, set="bon")
    assert len(pairs) == 2 and [drop.reason for drop in drops] == ["set_pairwise"]


def test_judgebench_keeps_the_sides(tmp_path: Path) -> None:
    (pair,), _ = sifted(tmp_path, "judgebench", JB)
    assert (pair.responses, pair.preferred) == (("Because.", "So."), 1)
    assert (pair.meta["group"], pair.meta["subset"]) == ("81ec57f2", "mmlu-pro-law")


def test_judgebench_takes_one_models_answers(tmp_path: Path) -> None:
    claude = {**JB, "pair_id": "2", "response_model": "claude-3-5-sonnet-20240620", "question": "How?"}
    pairs, drops = sifted(tmp_path, "judgebench", JB, claude)
    assert [p.context for p in pairs] == ["Human: Why?"]
    assert [drop.reason for drop in drops] == ["responses_claude-3-5-sonnet-20240620"]
    assert len(sifted(tmp_path, "judgebench", JB, claude, responses="all")[0]) == 2
    assert [p.context for p in sifted(tmp_path, "judgebench", JB, claude, responses="claude")[0]] == ["Human: How?"]


@pytest.mark.parametrize(
    ("dataset", "row", "reasons", "left"),
    [
        ("rewardbench", {**RB, "rejected": " "}, ["empty_response"], 0),
        ("rewardbench", {**RB, "rejected": "Yes. "}, ["identical_responses"], 0),
        ("rewardbench", {**RB, "prompt": ""}, ["no_prompt"], 0),
        ("rewardbench2", {**RB2, "rejected": ["x", "", "c"]}, ["empty_response", "identical_responses"], 1),
        ("rewardbench2", {**TIED, "chosen": ["c", "", "e"]}, ["empty_response"], 2),
        ("rm_bench", {**RM, "chosen": ["x", "b", "c"]}, ["identical_responses"], 8),
        ("rmb", {**RMB_BON, "bon_best": {"answer": "No."}}, ["identical_responses"], 1),
        ("judgebench", {**JB, "response_A": "So."}, ["identical_responses"], 0),
        ("judgebench", {**JB, "response_A": ""}, ["empty_text"], 0),
    ],
)
def test_what_cannot_be_compared_is_dropped_with_its_reason(
    tmp_path: Path, dataset: str, row: dict[str, Any], reasons: list[str], left: int
) -> None:
    pairs, drops = sifted(tmp_path, dataset, row)
    assert [drop.reason for drop in drops] == reasons
    assert len(pairs) == left and all(pair.meta["group_size"] == left for pair in pairs)
    assert drops[0].where.endswith("rows.jsonl:1") and drops[0].row == row


MALFORMED = [
    ("rewardbench", {**RB, "subset": "alpacaeval-eazy"}, "no such subset 'alpacaeval-eazy'; did you mean alpacaeval-"),
    ("rewardbench", {**RB, "chosen": None}, "'chosen': expected text, got None"),
    ("rewardbench", {k: v for k, v in RB.items() if k != "id"}, "no column 'id'"),
    ("rewardbench2", {**RB2, "chosen": "c"}, "'chosen': expected a list of texts, got 'c'"),
    ("rewardbench2", {**RB2, "rejected": []}, r"'rejected': expected a list of texts, got \[\]"),
    ("rewardbench2", {**TIED, "id": "4"}, "'id': expected tied:N or ref:N in subset Ties, got '4'"),
    ("rm_bench", {**RM, "chosen": ["a", "b"]}, "expected 3 of each .concise, detailed, markdown., got 2 and 3"),
    ("rm_bench", {**RM, "domain": "saftey"}, "'domain': no such subset 'saftey'"),
    ("rmb", {**RMB_PAIR, "reject": "No."}, "'reject': expected an object with an answer, got 'No.'"),
    ("rmb", {**RMB_BON, "loser_list": [{}]}, "'loser_list 0': expected an object with an answer"),
    ("rmb", {**RMB_BON, "loser_list": {}}, "'loser_list': expected a list of responses"),
    ("rmb", {**RMB_PAIR, "category_path": "Helpfulness/Chat"}, "'category_path': expected Pairwise_set or BoN_set/"),
    ("rmb", {**RMB_PAIR, "conversation_input": [{"role": "x", "content": ""}]}, "message 1: no such role 'x'"),
    ("judgebench", {**JB, "label": "A=B"}, "'label': expected A>B or B>A, got 'A=B'"),
    ("judgebench", {**JB, "label": ["A>B"]}, r"'label': expected A>B or B>A, got \['A>B'\]"),
    ("judgebench", {k: v for k, v in JB.items() if k != "question"}, "no column 'question'"),
]


@pytest.mark.parametrize(("dataset", "row", "said"), MALFORMED)
def test_a_row_that_is_not_of_the_benchmark_says_where(
    tmp_path: Path, dataset: str, row: dict[str, Any], said: str
) -> None:
    good = {"rewardbench": RB, "rewardbench2": RB2, "rm_bench": RM, "rmb": RMB_PAIR, "judgebench": JB}[dataset]
    with pytest.raises(ConfigError, match=rf"rows\.jsonl:2: .*{said}"):
        sifted(tmp_path, dataset, good, row)
    pairs, drops = sifted(tmp_path, dataset, good, row, on_error="skip")
    assert pairs and [drop.reason for drop in drops] == ["malformed"]


@pytest.mark.parametrize(
    ("dataset", "option", "value"),
    [("rm_bench", "pairs", "some"), ("rmb", "set", "bonn"), ("judgebench", "responses", "x")],
)
def test_a_choice_that_is_none(tmp_path: Path, dataset: str, option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{dataset} option {option}='{value}': no such choice"):
        sifted(tmp_path, dataset, RM, **{option: value})


@pytest.mark.parametrize("name", ["precise if", "Precise IF", "Precise Instruction Following"])
def test_subsets_are_known_by_their_names(tmp_path: Path, name: str) -> None:
    pairs, _ = sifted(tmp_path, "rewardbench2", {**RB2, "subset": name})
    assert pairs[0].meta["subset"] == "Precise IF"


def test_prompts_of_one_name_stay_apart(tmp_path: Path) -> None:
    pairs, _ = sifted(tmp_path, "rewardbench2", RB2, {**RB2, "prompt": "Ho?"})
    assert Counter(pair.meta["group"] for pair in pairs) == {"0": 3, "0#2": 3}


def test_what_is_missing_of_a_benchmark_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        sifted(tmp_path, "rm_bench", RM)
    assert "rm_bench: prompts are missing, so official scores are not comparable: chat 0 of 129" in caplog.text
    assert "safety-refuse 1 of 284" in caplog.text
    with caplog.at_level(logging.WARNING):
        sifted(tmp_path, "rewardbench", RB)
        sifted(tmp_path, "judgebench", JB)
    assert "alpacaeval-easy 1 of 100" in caplog.text and "and 18 more" in caplog.text
    assert "judgebench: prompts are missing, so official scores are not comparable: gpt 1 of 350" in caplog.text


@pytest.mark.parametrize(
    ("sizes", "total", "prompts"),
    [
        (rewardbench.SIZES, 2985, REWARDBENCH_PROMPTS),
        (rewardbench2.SIZES, 1865, REWARDBENCH2_PROMPTS),
        (rm_bench.SIZES, 1327, RM_BENCH_PROMPTS),
    ],
)
def test_published_sizes(sizes: dict[str, int], total: int, prompts: int) -> None:
    assert sum(sizes.values()) == prompts == total


def test_a_whole_benchmark_is_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**RB, "subset": subset} for subset, size in rewardbench.SIZES.items() for _ in range(size)]
    with caplog.at_level(logging.WARNING):
        pairs, _ = sifted(tmp_path, "rewardbench", *rows)
    assert len(pairs) == len({pair.label_id for pair in pairs}) == 2985 and not caplog.text


@pytest.mark.parametrize(
    ("dataset", "row", "splits"),
    [
        ("rewardbench", RB, ["filtered"]),
        ("rewardbench2", RB2, ["test"]),
        ("rm_bench", RM, ["train"]),
        ("judgebench", JB, ["gpt"]),
    ],
)
def test_without_files_the_hubs_split_is_read(
    monkeypatch: pytest.MonkeyPatch, dataset: str, row: dict[str, Any], splits: list[str]
) -> None:
    asked: list[tuple[str, str]] = []

    def hub_rows(item: Any, config: str | None, split: str) -> list[SourceRow]:
        assert config is None
        asked.append((item.name, split))
        return [SourceRow(f"{item.name}[{split}]:1", row)]

    monkeypatch.setattr("btrm.data.fields.hub_rows", hub_rows)
    query = Query("test")
    source = check_query(dataset, query)
    assert list(Sift().pairs(source.read(query)))
    hub = SOURCES[dataset].hub
    assert hub is not None and asked == [(hub.name, split) for split in splits]


def test_rmb_is_read_from_files_alone() -> None:
    query = Query("test")
    with pytest.raises(ConfigError, match=r"RMB .*give data_files"):
        list(check_query("rmb", query).read(query))
