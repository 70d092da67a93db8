"""Files as the hub has them, TRL's own reading of a prompt, a real tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_rows
import pytest
from data_rows import said

from btrm.cli import main
from btrm.data.sources import SOURCES, iter_pairs
from btrm.data.turns import compare

HUB_FILES = {
    "helpsteer3": ("preference", "validation", "preference/validation.jsonl", data_rows.helpsteer3),
    "ultrafeedback_binarized": ("default", "test_prefs", "data/test_prefs-0.jsonl", data_rows.ultrafeedback),
    "skywork_reward": ("default", "train", "data/train-0.jsonl", data_rows.skywork),
}


def cached(cache: Path, name: str, config: str, split: str, file: str, make: Callable[[int], Any]) -> None:
    """Write a data set into a hub's cache, its card with it."""
    folder = cache / f"datasets--{name.replace('/', '--')}" / "snapshots" / "main"
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text("".join(json.dumps(make(n)) + "\n" for n in range(1, 4)))
    files = f"  data_files:\n  - split: {split}\n    path: {file}\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n{files}---\n")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", HUB_FILES)
def test_a_set_is_read_from_the_hubs_cache(tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    hub = SOURCES[dataset].hub
    assert hub is not None
    cached(tmp_path / "hub", hub.name, *HUB_FILES[dataset])
    split = "validation" if dataset == "helpsteer3" else "test" if dataset == "ultrafeedback_binarized" else "train"
    assert len(list(iter_pairs(dataset, split))) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("need_swift")
def test_an_implicit_prompt_is_where_trl_finds_it() -> None:
    """TRL comes with ms-swift. It cuts texts at the first differing character, we at the word before."""
    from trl.data_utils import extract_prompt

    start = [said("system", "s"), said("user", "a"), said("assistant", "b"), said("user", "c")]
    row = {"chosen": [*start, said("assistant", "yes")], "rejected": [*start, said("assistant", "no")]}
    text = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    for one in (row, text):
        theirs: Any = extract_prompt(dict(one))
        assert compare(None, one["chosen"], one["rejected"]) == compare(**theirs)


def word_tokenizer(folder: Path) -> None:
    """Save a tokenizer of words and punctuation."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]").save_pretrained(folder)


@pytest.mark.slow
def test_tokens_are_counted_with_a_models_own_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    word_tokenizer(tmp_path / "model")
    rows = [{**data_rows.llmbar(n), "output_1": "word " * n} for n in range(1, 701)]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["data", "inspect", str(path), "--json", "--tokenizer", str(tmp_path / "model"), "--max-tokens", "604"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)["tokens"]
    assert found["context"] == {"min": 4, "mean": 4.0, "p50": 4, "p90": 4, "p99": 4, "max": 4}  # Human : Do 7
    assert (found["response"]["max"], found["together"]["max"], found["over_long"]) == (700, 704, 100)
    assert main([*words[:3], *words[4:]]) == 0
    assert "100 over 604 tokens with their context" in capsys.readouterr().out
    assert main(["data", "inspect", str(path), "--tokenizer", str(tmp_path / "none")]) == 2
    assert "none: no such folder; expected one with a tokenizer's files" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["data", "inspect", str(path), "--tokenizer", str(tmp_path / "empty")]) == 2
    assert "error: --tokenizer" in capsys.readouterr().err
