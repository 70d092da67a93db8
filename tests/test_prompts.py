from __future__ import annotations

from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.prompts import PROMPTS, get_prompt
from btrm.scores import Outcome, parse_score

PUBLISHED = {
    **{f"score5_v{n}": "score5_last" if n == 1 else "score5_first" for n in (1, 2, 3, 4)},
    "score100_v1": "score100_first",
    **{f"hh_{s}_v{n}": f"{s}_{'first' if n < 3 else 'last'}" for s in ("score5", "score100") for n in (1, 2, 3, 4)},
    "hh_score100_scoreonly": "score100_last",
}


def test_every_published_name_has_its_parser() -> None:
    assert {name: PROMPTS[name].parser.name for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize("name", PROMPTS)
def test_both_sides_share_the_prompt_up_to_the_response(name: str) -> None:
    context = "CONTEXT with {response} and {context} and {braces}"
    one, two = (PROMPTS[name].messages(context, r)[-1]["content"] for r in ("first one", "second one"))
    shared = one[: next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)]
    assert context in shared
    assert one.removeprefix(shared).startswith("first one")


@pytest.mark.parametrize("name", PROMPTS)
def test_a_target_is_read_back_by_the_prompts_own_parser(name: str) -> None:
    prompt = PROMPTS[name]
    target = prompt.target(4, "because it is good")
    assert target.count("<s>") == 1
    assert parse_score(target, prompt.parser).value == 4
    assert target.startswith("<s>") == (prompt.style != "reason_first")
    assert target.endswith("</s>") == (prompt.style != "score_first")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_prompt_shows_one_valid_example_tag(name: str) -> None:
    text = PROMPTS[name].messages("c", "r")[-1]["content"]
    assert parse_score(text, PROMPTS[name].parser).outcome is Outcome.SCORED


def test_an_unknown_prompt_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="hh_score100_v1"):
        get_prompt("hh_score10_v1")


def test_a_users_own_prompt_by_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from btrm.prompts import PROMPTS\nfrom dataclasses import replace\n"
        "MINE = replace(PROMPTS['score100_v1'], name='mine')\n"
    )
    assert get_prompt(f"{file}:MINE").name == "mine"
    with pytest.raises(ConfigError, match="MINE"):
        get_prompt(f"{file}:MNE")
