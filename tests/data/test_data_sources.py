from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from data_rows import MAKERS

from btrm.config import ConfigError
from btrm.data.detect import candidates
from btrm.data.items import Query
from btrm.data.sources import SOURCES, get_source, iter_pairs
from btrm.data.toy import toy_value
from btrm.records import PreferencePair

ADAPTER = """
from btrm.records import PreferencePair

def mine(split, limit, data_files):
    for number, path in enumerate(data_files):
        for line in path.read_text().splitlines():
            yield PreferencePair.make(line, ("x", "y"), 0, source="mine", split=split, label=LABEL)

def twice(split, limit, data_files):
    yield from [PreferencePair.make("c", ("x", "y"), 0, source="mine", split=split)] * 2

def wrong_type(split, limit, data_files):
    yield {"context": "c"}

def wrong_side(split, limit, data_files):
    yield PreferencePair.make("c", ("x", "y"), 2, source="mine", split=split)

def side_as_float(split, limit, data_files):
    yield PreferencePair.make("c", ("x", "y"), 1.0, source="mine", split=split)

def wrong_text(split, limit, data_files):
    yield PreferencePair.make("c\\ud800", ("x", "y"), 0, source="mine", split=split)

LABEL = "ann"
"""


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.py"
    path.write_text(ADAPTER)
    return path


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="dataset 'antropic_hh': no such data set; did you mean anthropic_hh"):
        get_source("antropic_hh")
    with pytest.raises(ConfigError, match="no split 'validation'; it has train, test"):
        iter_pairs("anthropic_hh", "validation")
    with pytest.raises(ConfigError, match="no option 'domian'; did you mean domain"):
        iter_pairs("summarize_from_feedback", "test", options={"domian": "all"})
    with pytest.raises(ConfigError, match="takes no columns"):
        iter_pairs("toy", "test", columns={"context": "c"})
    with pytest.raises(ConfigError, match="mapped reads files"):
        list(iter_pairs("mapped", "test"))


def test_a_users_own_adapter_is_found_by_path(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("one\ntwo\nthree\n")
    found = list(iter_pairs(f"{adapter}:mine", "dev", limit=2, data_files=[str(tmp_path / "data.txt")]))
    assert [(p.context, p.split, p.label_id.partition("-")[2]) for p in found] == [
        ("one", "dev", "ann"),
        ("two", "dev", "ann"),
    ]


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("twice", "item 1: label_id .* stands twice"),
        ("wrong_type", "item 0: expected a PreferencePair, got dict"),
        ("wrong_side", "item 0: preferred: expected 0, 1 or None, got 2"),
        ("side_as_float", "item 0: preferred: expected 0, 1 or None, got 1.0"),
        ("wrong_text", "item 0: context and responses: expected valid Unicode text"),
        ("nothing", "adapter.py has no 'nothing'"),
        ("LABEL", "expected a function, found str"),
    ],
)
def test_what_is_wrong_with_an_adapter_is_said(adapter: Path, function: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        list(iter_pairs(f"{adapter}:{function}", "dev"))


def test_the_hub_is_streamed_by_name_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None, **keywords: Any) -> list[dict[str, Any]]:
        calls.append((name, config, keywords))
        return [
            {"chosen": f"\n\nHuman: {n}\n\nAssistant: a", "rejected": f"\n\nHuman: {n}\n\nAssistant: b"} for n in "12"
        ]

    fake = ModuleType("datasets")
    fake.load_dataset = load_dataset  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert [p.context for p in iter_pairs("anthropic_hh", "test", limit=1)] == ["Human: 1"]
    with pytest.raises(StopIteration):
        next(iter_pairs("summarize_from_feedback", "test"))
    parquet = {"split": "validation", "revision": "refs/convert/parquet", "streaming": True}
    assert calls == [
        ("Anthropic/hh-rlhf", None, {"split": "test", "revision": None, "streaming": True}),
        ("openai/summarize_from_feedback", "comparisons", parquet),
    ]


def test_the_hub_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install btrm\[data\].*--data-files"):
        next(iter_pairs("anthropic_hh", "test"))


@pytest.mark.slow
def test_without_internet_the_message_names_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"Anthropic/hh-rlhf: not to be had from the hub .*--data-files"):
        next(iter_pairs("anthropic_hh", "test"))


ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    1.5,
    10**25,
    "",
    " ",
    "\u2028",
    "9" * 5000,
    [],
    [None],
    {},
    {"a": 1},
    [{"role": 1}],
]


@pytest.mark.parametrize("dataset", MAKERS)
def test_whatever_stands_in_a_column_a_row_is_a_pair_or_left_out_with_its_place(tmp_path: Path, dataset: str) -> None:
    row, path = MAKERS[dataset](1), tmp_path / "x.jsonl"
    columns = [*row, "extra", "prompt", "subset", "rejected_messages"]
    odd = [{**row, column: value} for column in columns for value in ODD_VALUES]
    odd += [{name: value for name, value in row.items() if name != column} for column in row]
    path.write_text("".join(json.dumps(one) + "\n" for one in odd))
    split = (SOURCES[dataset].splits or ("test",))[0]
    for item in SOURCES[dataset].read(Query(split, data_files=(path,))):
        assert isinstance(item, PreferencePair) or re.search(r"x.jsonl:\d+$", item.where), item
    for one in odd:
        assert set(candidates([one])) <= set(SOURCES)


def test_a_set_made_from_a_seed_reads_no_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset toy: is made from a seed and reads no files, got .*x\.jsonl"):
        iter_pairs("toy", "test", data_files=[tmp_path / "x.jsonl"])


def test_every_usual_prompt_exists() -> None:
    from btrm.prompts import PROMPTS

    assert {source.prompt for source in SOURCES.values()} - {None} <= set(PROMPTS)


def test_toy_pairs_do_not_depend_on_how_many_are_made_and_noise_flips_training_labels_only() -> None:
    clean = list(iter_pairs("toy", "train", limit=300))
    noisy = list(iter_pairs("toy", "train", limit=300, label_noise=0.2))
    assert clean[:50] == list(iter_pairs("toy", "train", limit=50))
    assert [p.responses for p in clean] == [p.responses for p in noisy]
    flipped = sum(a.preferred != b.preferred for a, b in zip(clean, noisy, strict=True))
    assert 40 <= flipped <= 80 and flipped == sum(p.meta["flipped"] for p in noisy)
    tests = list(iter_pairs("toy", "test", limit=300, label_noise=0.2))
    assert all(toy_value(p.responses[p.preferred or 0]) > toy_value(p.responses[1 - (p.preferred or 0)]) for p in tests)
    assert not {p.pair_id for p in clean} & {p.pair_id for p in tests}
    assert len({p.label_id for p in clean}) == 300
    assert clean != list(iter_pairs("toy", "train", limit=300, seed=1))
