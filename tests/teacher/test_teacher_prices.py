from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from btrm.config import ConfigError
from btrm.teacher.base import Usage
from btrm.teacher.config import TeacherConfig
from btrm.teacher.prices import Price, check_price, price_of


def config(backend: str = "anthropic", model: str = "claude-sonnet-4-20250514", **fields: Any) -> TeacherConfig:
    return TeacherConfig.build({"backend": backend, "model": model, **fields})


def input_price(**fields: Any) -> float | None:
    price = price_of(config(**fields))
    return None if price is None else price.input


@pytest.mark.parametrize(
    ("backend", "model", "expected"),
    [
        ("anthropic", "claude-sonnet-4-20250514", 3),
        ("anthropic", "claude-opus-4-1-20250805", 15),
        ("anthropic", "claude-opus-4-5-20251101", 5),
        ("anthropic", "claude-haiku-4-5", 1),
        ("anthropic", "claude-opus-9", None),
        ("gemini", "gemini-2.5-flash", 0.3),
        ("gemini", "models/gemini-2.5-flash-lite", 0.1),
        ("gemini", "gemini-2.5-flash-image", None),
        ("openai", "gpt-4o-mini-2024-07-18", 0.15),
        ("openai", "gpt-4o-2024-08-06", 2.5),
        ("openai", "gpt-4o-audio-preview", None),
        ("openai", "gpt-5.5-mini", None),  # no name is taken for another one's
    ],
)
def test_the_table_knows_families_and_no_more(backend: str, model: str, expected: float | None) -> None:
    assert input_price(backend=backend, model=model) == expected


def test_own_machines_are_free_and_servers_of_ones_own_have_no_price(tmp_path: Path) -> None:
    assert price_of(TeacherConfig()) == Price(input=0, output=0)
    assert input_price(backend="openai", model="gpt-5", base_url="http://127.0.0.1:8000/v1") is None
    assert input_price(backend="openai", model="gpt-5", base_url="https://api.openai.com/v1") == 1.25
    mine = tmp_path / "mine.toml"
    mine.write_text('[openai]\n"*" = { input = 0, output = 0 }\n')
    assert input_price(backend="openai", model="m", base_url="http://h:1/v1", prices=str(mine)) == 0
    check_price(config("openai", "m", base_url="http://h:1/v1", prices=str(mine), budget_usd=1.0))


def test_a_users_table_goes_first_and_leaves_the_others(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[anthropic]\n"claude-sonnet-*" = { input = 2.5, output = 12, batch = 0.4 }\n')
    assert input_price(prices=str(mine)) == 2.5
    assert input_price(model="claude-haiku-4-5", prices=str(mine)) == 1


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ('[anthropic]\n"m" = { input = -1, output = 2 }', ['mine.toml: [anthropic] "m"', "input", "-1"]),
        ('[anthropic]\n"m" = { input = 1 }\n"n" = 3', ["output: required", '"n"', "got 3"]),
        ('[antropic]\n"m" = { input = 1, output = 1 }', ["[antropic]", "did you mean anthropic?"]),
        ('[anthropic]\n"m" = { input = 1, output = 1, chached = 2 }', ["chached", "did you mean cached"]),
        ("[anthropic\n", ["mine.toml:", "line 1"]),
    ],
)
def test_a_bad_table_is_refused_by_file_and_key(tmp_path: Path, text: str, problems: list[str]) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        price_of(config(prices=str(tmp_path / "mine.toml")))
    assert all(problem in str(raised.value) for problem in problems)
    with pytest.raises(ConfigError, match="no such file"):
        price_of(config(prices=str(tmp_path / "other.toml")))


def test_a_budget_without_a_price_says_how_to_give_one(tmp_path: Path) -> None:
    asked = config(model="claude-next", budget_usd=5.0)
    with pytest.raises(ConfigError, match=r"--prices FILE\.toml") as raised:
        check_price(asked)
    table = "\n".join(line.strip() for line in str(raised.value).splitlines()[1:])
    (tmp_path / "p.toml").write_text(table)  # what it says to write is a table that works
    check_price(asked.model_copy(update={"prices": str(tmp_path / "p.toml")}))
    check_price(config(model="claude-next"))


def test_each_kind_of_token_has_its_price_and_batches_their_factor() -> None:
    usage = Usage(input=1_000_000, output=2_000_000, cached=3_000_000, cache_written=4_000_000)
    price = Price(input=3, output=15, cached=0.3, cache_written=3.75)
    assert price.usd(usage, "direct") == pytest.approx(3 + 30 + 0.9 + 15)
    assert price.usd(usage, "batch") == pytest.approx(48.9 / 2)
    assert Price(input=3, output=15).usd(usage, "direct") == pytest.approx(3 * 8 + 30)
