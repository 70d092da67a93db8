"""Pairs in other trainers' forms: written whole, read back alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import data_rows
import pytest
from data_rows import MAKERS, said
from hypothesis import given
from hypothesis import strategies as st

from btrm.cli import main
from btrm.data.chat_text import chat_text, read_chat
from btrm.data.detect import detect
from btrm.data.messages import messages_of
from btrm.data.sources import SOURCES, iter_pairs
from btrm.records import PreferencePair, read_pairs

FOUND = {"trl": "trl", "swift-rm": "swift_rm", "rewardbench": "trl"}
HH = "hh-rlhf/harmless-base.half.jsonl.gz"


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def judged(pairs: list[PreferencePair]) -> list[tuple[str, str, str]]:
    """(context, preferred, other) of pairs that are no ties, whitespace around turns aside."""
    return [
        (chat_text(read_chat(messages_of(pair.context))), pair.responses[side], pair.responses[1 - side])
        for pair in pairs
        if (side := pair.preferred) is not None
    ]


def read(path: Path, dataset: str, split: str = "test", **options: str) -> list[PreferencePair]:
    return list(iter_pairs(dataset, split, data_files=[path], options=options))


@pytest.mark.parametrize("target", FOUND)
@pytest.mark.parametrize("dataset", MAKERS)
def test_each_set_survives_the_way_there_and_back(tmp_path: Path, dataset: str, target: str) -> None:
    path, out = write(tmp_path / "data.jsonl", *(MAKERS[dataset](n) for n in range(8))), tmp_path / "out.jsonl"
    assert main(["data", "convert", str(path), "--to", target, "--out", str(out)]) == 0
    found = "rewardbench" if dataset == target == "rewardbench" else FOUND[target]
    assert detect((out,)) == found
    split = (SOURCES[dataset].splits or ("test",))[0]
    options = {"responses": "all"} if dataset == "judgebench" else {}
    before, after = judged(read(path, dataset, split, **options)), judged(read(out, found))
    if dataset == "summarize_from_feedback":  # its contexts are posts, which a user says
        before = [(f"Human: {context.removeprefix('Human: ')}", *rest) for context, *rest in before]
    assert before == after and before


@pytest.mark.parametrize("target", FOUND)
def test_the_real_conversations_survive_it(tmp_path: Path, shared_data: Path, target: str) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["data", "convert", str(shared_data / HH), "--to", target, "--out", str(out)]) == 0
    assert judged(read(shared_data / HH, "anthropic_hh")) == judged(read(out, FOUND[target]))
    reasons = [line["reason"] for line in lines(tmp_path / "out.jsonl.dropped.jsonl")]
    assert sorted(reasons) == ["different_prefix", "different_prefix", "empty_response"]


def test_btrms_own_form_keeps_everything(tmp_path: Path, shared_data: Path) -> None:
    path, out = shared_data / "pandalm/testset-v1.first-500.json", tmp_path / "p.pairs.parquet"
    words = ["data", "convert", str(path), "--to", "btrm", "--out", str(out), "--prompt", "hh_score100_v1"]
    assert main(words) == 0
    assert list(read_pairs(out)) == read(path, "pandalm") == read(out, "btrm")
    rows = lines(tmp_path / "p.rows.jsonl")
    assert len(rows) == 2 * (1500 - 265) and rows[0]["messages"][0]["content"].startswith("You are grading")
    assert (tmp_path / "p.pairs.parquet.dropped.jsonl").read_text() == ""


def test_rows_are_what_each_trainer_reads(tmp_path: Path) -> None:
    row = {"prompt": [said("system", "Be kind"), said("user", "Ask")], "chosen": [said("assistant", "yes")]}
    path = write(tmp_path / "x.jsonl", {**row, "rejected": [said("assistant", "no")]})
    made: dict[str, dict[str, Any]] = {}
    for target in FOUND:
        out = tmp_path / f"{target}.jsonl"
        assert main(["data", "convert", str(path), "--to", target, "--out", str(out)]) == 0
        (made[target],) = lines(out)
    prompt = [said("system", "Be kind"), said("user", "Ask")]
    assert made["trl"] == {
        "prompt": prompt,
        "chosen": [said("assistant", "yes")],
        "rejected": [said("assistant", "no")],
    }
    assert made["swift-rm"] == {"messages": [*prompt, said("assistant", "yes")], "rejected_response": "no"}
    bench = made["rewardbench"]
    assert list(bench) == ["prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset", "id"]
    assert bench["prompt"] == prompt and (bench["chosen"], bench["rejected"]) == ("yes", "no")


def test_rewardbenchs_prompts_are_texts_where_all_can_be(tmp_path: Path) -> None:
    path, out = write(tmp_path / "x.jsonl", data_rows.trl(1), data_rows.trl(2)), tmp_path / "out.jsonl"
    words = ["data", "convert", str(path), "--to", "rewardbench", "--out", str(out), "--force"]
    assert main(words) == 0 and [row["prompt"] for row in lines(out)] == ["Ask 1", "Ask 2"]
    several = {**data_rows.trl(3), "prompt": [said("user", "a"), said("assistant", "b"), said("user", "c")]}
    write(path, data_rows.trl(1), several)
    assert main(words) == 0
    assert [len(row["prompt"]) for row in lines(out)] == [1, 3]  # messages, all of them


def test_ties_and_what_nobody_can_learn_from_are_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [data_rows.autoj(n) for n in range(6)]
    rows += [{**data_rows.autoj(0), "response 1": ""}, {**data_rows.autoj(0), "response 1": "x", "response 2": "x"}]
    path, out = write(tmp_path / "x.jsonl", *rows), tmp_path / "out.jsonl"
    assert main(["data", "convert", str(path), "--to", "trl", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"{out}: 4 rows of autoj, as trl" in told and "2 tie, 1 empty_response, 1 identical_responses" in told
    left = lines(tmp_path / "out.jsonl.dropped.jsonl")
    assert [line["reason"] for line in left] == ["tie", "tie", "empty_response", "identical_responses"]
    assert left[0]["row"]["responses"] == ["one 2", "two 2"] and left[0]["where"].endswith("-0")


def test_a_reply_is_no_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = {"context": "Human: a\n\nAssistant: b", "chosen": "c", "rejected": "d"}
    path = write(tmp_path / "x.jsonl", pair)
    roles = ["context=context", "chosen=chosen", "rejected=rejected"]
    words = ["data", "convert", str(path), "--to", "trl", "--dataset", "mapped", "--columns", *roles]
    assert main([*words, "--out", str(tmp_path / "o.jsonl")]) == 2
    assert "not one pair for trl (context_ends_in_reply 1)" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--to", "trl", "--out", "there.jsonl"], "there.jsonl: exists (--force overwrites)"),
        (["--to", "trl", "--out", "there.parquet"], "--to trl writes a file that ends in .jsonl"),
        (["--to", "btrm", "--out", "x.jsonl"], "--to btrm writes a file that ends in .parquet"),
        (["--to", "trl", "--prompt", "hh_score100_v1"], "--prompt: is for --to btrm"),
        (["--to", "btrm", "--prompt", "hh_score100_v9"], "hh_score100_v9"),
        (["--to", "trl", "--out", "data.jsonl", "--force"], "--out data.jsonl: is what is read"),
        (["--to", "trl", "--dataset", "pandalm"], "data.jsonl:1: no column"),
        (["--to", "trl", "--split", "x", "--dataset", "anthropic_hh"], "no split 'x'; it has train, test"),
    ],
)
def test_a_wrong_request_writes_nothing(
    tmp_path: Path, words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "data.jsonl", data_rows.llmbar(0))
    (tmp_path / "there.jsonl").write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["data", "convert", "data.jsonl", *words]) == 2
    assert problem in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_is_not_read_with_what_was_written_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "x.jsonl", data_rows.trl(0), data_rows.trl(1))
    words = ["data", "convert", str(tmp_path), "--to", "trl", "--out", str(tmp_path / "o.jsonl"), "--force"]
    assert main(words) == 0 and len(lines(tmp_path / "o.jsonl")) == 2
    assert main(words) == 2
    assert f"--out {tmp_path / 'o.jsonl'}: is what is read" in capsys.readouterr().err
    assert len(lines(tmp_path / "o.jsonl")) == 2


def test_a_malformed_row_stops_it_or_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write(tmp_path / "data.jsonl", data_rows.llmbar(0), {"input": 3}, data_rows.llmbar(1)), Path("o.jsonl")
    words = ["data", "convert", str(path), "--to", "swift-rm", "--out", str(out)]
    assert main(words) == 2 and not out.exists()
    assert f"{path}:2: " in capsys.readouterr().err
    assert main([*words, "--on-error", "skip"]) == 0 and len(lines(out)) == 2
    (left,) = lines(Path("o.jsonl.dropped.jsonl"))
    assert (left["reason"], left["where"]) == ("malformed", f"{path}:2")


def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "data.jsonl", data_rows.llmbar(0))
    assert main(["data", "convert", str(path), "--to", "trl", "--out", "/proc/none/out.jsonl"]) == 2
    assert "/proc/none" in capsys.readouterr().err


def test_known_sets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(told) == set(SOURCES)
    assert told["helpsteer3"].startswith("hub nvidia/HelpSteer3; splits train, validation; options min_strength;")


def test_the_default_place_is_here_under_the_files_name(tmp_path: Path) -> None:
    folder = tmp_path / "far"
    folder.mkdir()
    path = write(folder / "data.v2.jsonl", data_rows.llmbar(0))
    for target in ("trl", "btrm"):
        assert main(["data", "convert", str(path), "--to", target]) == 0
    assert Path("data.trl.jsonl").exists() and Path("data.pairs.parquet").exists()


@pytest.mark.parametrize(
    ("context", "messages"),
    [
        ("A post", [said("user", "A post")]),
        ("Human: a", [said("user", "a")]),
        ("System: s\n\nHuman: a\n\nAssistant:\n\nHuman: b", [
            said("system", "s"), said("user", "a"), said("assistant", ""), said("user", "b"),
        ]),
        ("Human: a\n\nb\n\nHuman says", [said("user", "a\n\nb\n\nHuman says")]),
        ("Post\n\nHuman: a", [said("user", "Post\n\nHuman: a")]),
    ],
)  # fmt: skip
def test_a_context_is_taken_apart_as_it_was_put_together(context: str, messages: list[dict[str, str]]) -> None:
    assert messages_of(context) == messages
    marked = context if context.startswith(("Human:", "System:")) else f"Human: {context}"
    assert chat_text(read_chat(messages)) == marked


TEXTS = st.text(alphabet='ab :\n\u00e9{}"', min_size=1).map(str.strip).filter(bool)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), TEXTS), min_size=1))
def test_any_conversation_is_the_same_after_text_and_back(turns: list[tuple[str, str]]) -> None:
    messages = [said(role, text) for role, text in turns]
    assert messages_of(chat_text(read_chat(messages))) == messages


@pytest.mark.slow
@pytest.mark.usefixtures("need_swift")
def test_ms_swift_takes_its_rows(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real preprocessor and template inputs: every row stays, both conversations are what they were."""
    for name in ("MODELSCOPE_CACHE", "HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    from swift.dataset import load_dataset
    from swift.template.template_inputs import TemplateInputs

    out = tmp_path / "rm.jsonl"
    assert main(["data", "convert", str(shared_data / HH), "--to", "swift-rm", "--out", str(out)]) == 0
    loaded: Any = load_dataset([str(out)], strict=True, num_proc=1, load_from_cache_file=False)[0]
    assert len(loaded) == 1132
    ranked = judged(read(shared_data / HH, "anthropic_hh"))
    for row, (context, chosen, rejected) in zip(loaded, ranked, strict=True):
        inputs: Any = TemplateInputs.from_dict(dict(row))
        assert chat_text(read_chat(inputs.chosen.messages)) == f"{context}\n\nAssistant: {chosen}".rstrip()
        assert chat_text(read_chat(inputs.rejected.messages)) == f"{context}\n\nAssistant: {rejected}".rstrip()
