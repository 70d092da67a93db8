"""What a reward is made of: one name and its knobs, under our names and the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import field_validator

from btrm.config import Config, ConfigError, flat_fields, nearest, published_name, setting
from btrm.rewards.published import PUBLISHED, PublishedReward
from btrm.scores import PARSERS

# A user's own reward is named by its file and function.
_OWN = ".py:"


class RewardConfig(Config):
    """A reward by name with its knobs; `published` names (BT_...) are accepted by --set and --preset.

    A knob that is None takes the default of the named reward (see `resolved`). Margins and thresholds are in the
    units of the score (0-100 or 1-5); clips, taus, gamma and the grade threshold in units of margin / temperature.
    """

    name: str = setting("bt_pointwise_baseline", "a published reward, or FILE.py:function", published="REWARD_NAME")
    parser: str = setting("score100_last", "how a completion's score is read", published="BT_SCORE_PARSER")
    delta_temp: float = setting(20.0, "margin temperature of the baseline family", published="BT_DELTA_TEMP", gt=0)
    delta_clip: float = setting(0.0, "upper clip of margin/temperature, 0 = off", published="BT_DELTA_CLIP", ge=0)
    delta_neg_clip: float = setting(
        0.0, "lower clip of margin/temperature at minus this, 0 = off", published="BT_DELTA_NEG_CLIP", ge=0
    )
    scale: float = setting(1.0, "factor on the log-sigmoid", published="BT_REWARD_SCALE", gt=0)
    offset: float = setting(0.0, "added to the scaled log-sigmoid", published="BT_REWARD_OFFSET")
    parse_fail: float | None = setting(
        None, "reward without a score or an opponent; none: the named reward's own", published="BT_REWARD_PARSE_FAIL"
    )
    pos: float = setting(1.0, "binary: margin above 0", published="BT_REWARD_POS")
    neg: float = setting(-1.0, "binary: any other margin", published="BT_REWARD_NEG")
    wrong: float = setting(0.0, "graded: margin at or below 0", published="BT_REWARD_WRONG")
    low: float = setting(1.2, "graded: right, up to the threshold", published="BT_REWARD_LOW")
    high: float = setting(1.4, "graded: right, above the threshold", published="BT_REWARD_HIGH")
    score_temp: float = setting(20.0, "margin temperature of graded and hard_margin", published="BT_SCORE_TEMP", gt=0)
    grade_thresh: float = setting(0.1, "graded: margin/temperature that is high", published="BT_GRADE_THRESH", ge=0)
    hard_tau: float | None = setting(
        None, "pair weights: where a pair stops being hard; none: the named reward's own", published="BT_HARD_TAU", gt=0
    )
    hard_lambda: float = setting(0.5, "step weight of a hard right pair", published="BT_HARD_LAMBDA", ge=0)
    hard_eps: float = setting(0.1, "step weight of an easy pair", published="BT_HARD_EPS", ge=0)
    margin_gamma: float = setting(0.5, "hard_margin: the margin/temperature asked for", published="BT_MARGIN_GAMMA")
    margin_temp: float = setting(1.0, "hard_margin: temperature past gamma", published="BT_MARGIN_TEMP", gt=0)
    lone_side: Literal["raise", "penalise"] = setting("raise", "a pair with one side only: an error, or parse_fail")
    unparsed: Literal["floor", "published"] = setting(
        "floor", "floor: never above the group's lowest scored reward; published: parse_fail"
    )
    ties: Literal["exact", "published"] = setting(
        "exact", "exact: margins in 9 decimals, so that ties are ties; published: float dust decides them"
    )
    weight_on: Literal["advantage", "reward"] = setting(
        "advantage", "where pair weights go: on the normalised advantage, or in the reward (published)"
    )

    @field_validator("name")
    @classmethod
    def _known_reward(cls, name: str) -> str:
        if name not in PUBLISHED and _OWN not in name:
            raise ValueError(f"no such reward{nearest(name, PUBLISHED)}; or FILE.py:function")
        return name

    @field_validator("parser")
    @classmethod
    def _known_parser(cls, parser: str) -> str:
        if parser not in PARSERS:
            raise ValueError(f"no such parser{nearest(parser, PARSERS)}")
        return parser

    @classmethod
    def parity(cls, values: Mapping[str, Any] | None = None, where: str = "") -> Self:
        """Return a config that rewards exactly as published: `values` are fields or published names."""
        published = {alias: path for path, info in flat_fields(cls).items() if (alias := published_name(info))}
        modes = {"lone_side": "penalise", "unparsed": "published", "ties": "published", "weight_on": "reward"}
        given = {published.get(key, key): value for key, value in (values or {}).items()}
        return cls.build({**modes, **given}, where)

    @property
    def own(self) -> bool:
        """Whether the reward is a user's own, `FILE.py:function`."""
        return self.name not in PUBLISHED

    @property
    def parts(self) -> PublishedReward:
        """Opponent, shape, weight and defaults of the named reward; of the baseline for a user's own."""
        return PUBLISHED.get(self.name, PUBLISHED["bt_pointwise_baseline"])

    def resolved(self) -> Self:
        """Return a copy in which every knob has a value."""
        parts = self.parts
        fail = self.neg if parts.shape == "sign" else parts.parse_fail
        return self.model_copy(
            update={
                "parse_fail": fail if self.parse_fail is None else self.parse_fail,
                "hard_tau": parts.hard_tau if self.hard_tau is None else self.hard_tau,
            }
        )


def refuse_environment(environ: Mapping[str, str]) -> None:
    """Raise ConfigError for BT_* names and REWARD_NAME left in a shell: they would leak from one study to the next."""
    left = sorted(name for name in environ if name.startswith("BT_") or name == "REWARD_NAME")
    if left:
        raise ConfigError(
            f"in the environment: {', '.join(left)}. Settings are not read from there: give them as "
            f"--set {left[0]}={environ[left[0]]} or in a file by --preset FILE.env, then: unset {' '.join(left)}"
        )
