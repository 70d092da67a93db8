from __future__ import annotations

import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from btrm.cli import main as btrm
from btrm.config import ConfigError
from btrm.records import PreferencePair, write_pairs
from btrm.runs import Resources, RunPaths, StageRun
from btrm.submit import main as submit
from btrm.teacher.asking import check_calls
from btrm.teacher.base import Usage
from btrm.teacher.config import TeacherConfig
from btrm.teacher.estimate import bound_of, most_answer, most_of
from btrm.teacher.forecast import thought
from btrm.teacher.gate import Cost
from btrm.teacher.journal import journals, read_journal
from btrm.teacher.layouts import make_calls
from btrm.teacher.prices import Price, price_of
from btrm.teacher.stage import estimate_teacher
from btrm.teacher.tokens import tokens_of, typical_tokens

MODEL = "claude-sonnet-4-20250514"
PRICE = Price(input=3, output=15, cached=0.3, cache_written=3.75)


def pairs(root: Path, count: int, words: int = 40) -> list[PreferencePair]:
    made = [
        PreferencePair.make(f"Number {n}. " + "A word of it. " * words, ("Yes.", "No."), 0, source="s", split="train")
        for n in range(count)
    ]
    write_pairs(root / "pairs.parquet", made)
    return made


def config(root: Path, **fields: Any) -> TeacherConfig:
    values = {"backend": "anthropic", "model": MODEL, "pairs": str(root / "pairs.parquet"), **fields}
    return TeacherConfig.build(values)


def estimate(root: Path, **fields: Any) -> dict[str, str]:
    """Return the estimate's lines by their first word."""
    directory = root / "teacher"
    run = StageRun(RunPaths(root), "teacher", directory, Resources(), directory / "stage.json")
    lines = estimate_teacher(config(root, **fields), run).splitlines()
    return {line.split()[0]: line for line in lines}


def first(line: str) -> float:
    found = re.search(r"[\d,]+\.?\d*", line)
    assert found is not None
    return float(found[0].replace(",", ""))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The quick brown fox jumps over the lazy dog.", 10),  # as byte-pair encodings of English cut it
        ("敏捷的棕色狐狸跳过了懒狗。", 12),
        ("Съешь же ещё этих мягких французских булок.", 16),
        ("x = {'a': [1, 2, 3], 'b': f(y)}", 18),
        ("😀😀😀", 6),
    ],
)
def test_token_counts_lie_between_half_and_the_bound(text: str, tokens: int) -> None:
    assert tokens <= tokens_of(text)
    assert tokens / 2 <= typical_tokens(text) <= 2 * tokens


def test_odd_texts_have_counts_too() -> None:
    assert tokens_of("") == 0 and tokens_of("\ud800") == 2 and tokens_of("\x00") == 1


def test_the_most_that_a_call_can_cost_is_never_less_than_what_it_did(tmp_path: Path) -> None:
    (pair,) = pairs(tmp_path, 1)
    asked = config(tmp_path, max_tokens=500, thinking_budget=1024, layout="pairwise")
    (call,) = make_calls(asked, {0: pair}, [(pair.label_id, 0, 0), (pair.label_id, 1, 0)])
    most = most_of(call, asked, PRICE)
    answer = most_answer(call, asked)
    assert answer == 2 * 500 + 1024
    prompt = round(thought(call))
    for usage in (Usage(prompt, answer), Usage(0, answer, 0, prompt), Usage(0, answer, prompt)):
        assert usage.prompt + usage.output <= most.tokens and PRICE.usd(usage, "direct") <= most.usd
    assert most_of(call, asked.model_copy(update={"mode": "batch"}), PRICE).usd == pytest.approx(most.usd / 2)
    assert most_of(call, asked, None) == Cost(most.tokens, 0.0)


def test_nothing_is_sent_and_no_key_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs(tmp_path, 100)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    words = ["--backend", "anthropic", "--model", MODEL, "--n-pairs", "50", "--rpm", "50"]
    assert submit(["teacher", "--run", str(tmp_path), f"--pairs={tmp_path}/pairs.parquet", *words, "--estimate"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["calls"].startswith("calls    100 that ask about 100 responses (pointwise)")
    assert "2 min in one shard, held up by rpm 50" in lines["time"] and "a guess" in lines["answers"]
    assert not (tmp_path / "teacher").exists()


def test_dollars_are_tokens_times_prices(tmp_path: Path) -> None:
    pairs(tmp_path, 40)
    told = estimate(tmp_path)
    price = price_of(config(tmp_path))
    assert price is not None
    expected = price.usd(Usage(round(first(told["prompts"])), round(first(told["answers"]))), "direct")
    assert first(told["cost"]) == pytest.approx(expected, abs=0.006)
    assert "with --mode batch" in "".join(told.values())
    assert "NOT enough" in estimate(tmp_path, budget_usd=0.01)["budget"]
    assert "enough" in estimate(tmp_path, budget_usd=50.0)["budget"]
    unknown = estimate(tmp_path, model="claude-next")
    assert "? :" in unknown["cost"] and "--prices" in unknown["cost"]


@pytest.mark.parametrize(
    ("backend", "model", "room"),
    [
        ("openai", "gpt-5", 4096), ("openai", "openai/gpt-5-mini", 4096), ("openai", "o3-mini", 4096),
        ("openai", "o1", 4096), ("openai", "gpt-4o", 0), ("openai", "gpt-4.1", 0), ("openai", "Qwen/Qwen3-8B", 0),
        ("gemini", "gemini-2.5-flash", 4096), ("gemini", "models/gemini-3-pro-preview", 4096),
        ("gemini", "gemini-flash-lite-latest", 4096), ("gemini", "gemini-2.0-flash", 0),
        ("gemini", "gemini-1.5-pro-latest", 0), ("anthropic", "claude-sonnet-4-5", 0),
    ],
)  # fmt: skip
def test_room_for_thinking_is_kept_free_and_told(tmp_path: Path, backend: str, model: str, room: int) -> None:
    (pair,) = pairs(tmp_path, 1)
    asked = config(tmp_path, backend=backend, model=model, max_tokens=100)
    (call,) = make_calls(asked, {0: pair}, [(pair.label_id, 0, 0)])
    assert most_answer(call, asked) == 100 + room
    told = estimate(tmp_path, backend=backend, model=model)
    assert ("thinks unasked" in told.get("thinking", "")) is bool(room)
    assert "thinking" not in estimate(tmp_path, backend=backend, model=model, thinking_budget=2000)


def test_a_long_system_prompt_is_cached_whatever_the_layout(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from btrm.teacher.teacher_prompts import TEACHER_PROMPTS\n"
        "from dataclasses import replace\n"
        "MINE = replace(TEACHER_PROMPTS['general'], name='mine', task='Weigh every word of it. ' * 400)\n"
    )
    pairs(tmp_path, 20)
    for fields in ({"layout": "pairwise"}, {"batch_size": 2}):
        assert "none" in estimate(tmp_path, **fields)["cached"]
        assert first(estimate(tmp_path, **fields, teacher_prompt=f"{tmp_path}/mine.py:MINE")["cached"]) > 60


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": 1.2}, "temperature 1.2: anthropic takes 0 to 1"),
        ({"backend": "gemini", "model": "gemini-2.5-pro", "thinking_budget": 0}, "gemini-2.5-pro always thinks"),
    ],
)
def test_what_an_api_would_refuse_is_refused_before(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, **fields)
    config(tmp_path, backend="gemini", model="gemini-2.5-flash", thinking_budget=0, temperature=1.2)


def test_long_contexts_are_cached_from_the_second_call_on(tmp_path: Path) -> None:
    pairs(tmp_path, 4, words=2000)
    told = estimate(tmp_path)
    assert 45 <= first(told["cached"]) <= 50  # two calls a pair, nearly all of them the context
    assert first(told["cost"]) < first(estimate(tmp_path, prompt_cache="off")["cost"])
    assert "not counted on" in estimate(tmp_path, mode="batch")["cached"]


def test_what_was_answered_is_not_counted_and_what_it_took_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs(tmp_path, 30)
    monkeypatch.setenv("BTRM_SITE", "local")
    words = ["teacher", "--run", str(tmp_path), f"--pairs={tmp_path}/pairs.parquet"]
    assert submit([*words, "--n-pairs", "10"]) == 0
    before = estimate(tmp_path)
    assert before["calls"].startswith("calls    40 ")
    (journal,) = journals(tmp_path / "teacher/calls")
    made = [replace(e, usage=Usage(1000, 70), usd=0.01, latency_s=3.0) for e in read_journal(journal)]
    journal.write_bytes(b"".join(entry.to_line() for entry in made))
    told = estimate(tmp_path)
    assert first(told["prompts"]) == pytest.approx(40 * 1000, rel=0.02) and "20 answered calls" in told["prompts"]
    assert "2,800 tokens" in told["answers"] and "measured: 70 a response" in told["answers"]
    left = first(told["cost"]) + 0.2
    assert "$0.20 of it spent: enough" in estimate(tmp_path, budget_usd=left + 0.01)["budget"]
    assert "$0.20 of it spent: NOT enough" in estimate(tmp_path, budget_usd=left - 0.02)["budget"]
    assert "16 under way at 3.0 s each" in told["time"] and "guess" not in told["time"]
    capsys.readouterr()
    assert btrm(["redo", str(tmp_path / "teacher"), "--outcomes", "scored,unparsed"]) == 0
    said = capsys.readouterr().out
    assert "20 answers are forgotten" in said
    assert f"python -m btrm.submit teacher --run={tmp_path} --pairs={tmp_path}/pairs.parquet --n-pairs=10" in said
    assert estimate(tmp_path)["calls"].startswith("calls    60 ")


@pytest.mark.parametrize("letters", ["a b", "{1}\n", "ñж", "漢字", "\U0001f600", "\ud800", "a漢\U0001f6001"])
def test_a_call_that_is_too_large_for_a_minute_is_found_among_many(letters: str) -> None:
    pair = PreferencePair.make("Why?", ("Yes.", letters * 3000), 0, source="s", split="train")
    told = TeacherConfig(backend="openai", model="m")
    calls = list(make_calls(told, {0: pair}, [(pair.label_id, side, 0) for side in (0, 1)]))
    most = max(most_of(call, told, None).tokens for call in calls)
    assert all(most_of(call, told, None).tokens <= bound_of(call, told) for call in calls)
    check_calls(told.model_copy(update={"tpm": most}), calls)
    with pytest.raises(ConfigError, match=f"one call may take {most} tokens"):
        check_calls(told.model_copy(update={"tpm": most - 1}), calls)
