from __future__ import annotations

import pytest

from btrm.config import Config, ConfigError, extent, members, setting
from btrm.launch.flags import Parser, add_config_flags, assignments, normalise


class Reward(Config):
    temp: float = setting(20.0, "100% margin temperature", published="BT_DELTA_TEMP")


class Stage(Config):
    n_pairs: int = extent(10, "how many")
    dynamic: bool = setting(False, "a switch")
    checkpoints: dict[str, str] = members({"a": "x"}, "which")
    seeds: tuple[int, ...] = extent((0,), "cells")
    reward: Reward = Reward()


def parsed(*argv: str) -> Stage:
    parser = Parser(prog="x", allow_abbrev=False)
    add_config_flags(parser, Stage)
    return Stage().override(assignments(parser.parse_args(normalise(argv))))


def test_flags_reach_every_field_in_both_spellings() -> None:
    config = parsed("--n_pairs", "5", "--dynamic", "--reward.temp=7", "--seeds", "1,2")
    assert (config.n_pairs, config.dynamic, config.reward.temp, config.seeds) == (5, True, 7.0, (1, 2))
    assert parsed("--dynamic", "false").dynamic is False


def test_a_mapping_flag_may_be_repeated() -> None:
    assert parsed("--checkpoints", "b=@m", "--checkpoints", "c=@n,d=@o").checkpoints == {
        "b": "@m",
        "c": "@n",
        "d": "@o",
    }


def test_what_is_not_given_stays_the_experiments_own() -> None:
    parser = Parser(prog="x")
    add_config_flags(parser, Stage)
    assert assignments(parser.parse_args([])) == []


def test_an_unknown_flag_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--n-pair"):
        parsed("--n-pair", "5")


def test_values_keep_their_underscores() -> None:
    assert normalise(["--data_files=a_b", "c_d"]) == ["--data-files=a_b", "c_d"]


def test_help_names_defaults_and_published_names() -> None:
    parser = Parser(prog="x")
    add_config_flags(parser, Stage)
    text = " ".join(parser.format_help().split())
    assert "(default: 20.0) [BT_DELTA_TEMP]" in text and "raising it extends" in text
