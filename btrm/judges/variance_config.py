"""What the `variance` stage is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Self

from pydantic import field_validator, model_validator

from btrm.config import extent, members, setting, source
from btrm.judges.base import MAX_SAMPLES
from btrm.judges.grid_config import GridConfig
from btrm.prompts import PromptSpec, get_prompt
from btrm.records import stable_hash

# Uncertain scores as the published tools have them; spreads in tenths and less of the scale's width.
_ZONES = {"score100": (20.0, 80.0), "score5": (2.0, 4.0)}
_RANGES = {"score100": (5.0, 10.0, 20.0), "score5": (0.2, 0.4, 0.8)}


class VarianceConfig(GridConfig):
    """Which prompts one model is asked with, and what is looked at in its answers."""

    model: str = source("@merge/model", "the model that is asked")
    base: str | None = source(None, "the model that a LoRA adapter stands on (none: the model is a whole one)")
    prompts: tuple[str, ...] = extent(("toy_score100",), "the prompts to compare", min_length=1)
    pairs: dict[str, str] = members(
        default={"validation": "@pairs/validation.pairs.parquet"},
        help="{data set: pairs to judge}: a prompt is chosen on other pairs than it is tested on",
    )
    n_pairs: int | None = extent(200, "judge the first n pairs of each (none: all)", ge=1)
    seeds: tuple[int, ...] = extent((0,), "each adds n_samples answers a side", min_length=1)
    n_samples: int = setting(8, "answers a side", ge=1, le=MAX_SAMPLES)
    unc_low: float | None = extent(None, "scores from here ... (none: 20 on 0-100, 2 on 1-5)", published="EVAL_UNC_LOW")
    unc_high: float | None = extent(
        None, "... to here count as uncertain (none: 80 on 0-100, 4 on 1-5)", published="EVAL_UNC_HIGH"
    )
    range_thresholds: tuple[float, ...] = extent(
        (), "spreads of a side's scores to count (none: 5,10,20 on 0-100, 0.2,0.4,0.8 on 1-5)"
    )
    n_bootstrap: int = extent(10_000, "resamples of the contexts for the 95 % intervals", ge=100)
    bootstrap_seed: int = extent(0, "seed of the resamples")

    @field_validator("prompts")
    @classmethod
    def _known_prompts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [get_prompt(prompt).name for prompt in value]
        if len(set(names)) != len(names):
            raise ValueError(f"two prompts are called alike ({', '.join(names)}); rows could not be told apart")
        return value

    @model_validator(mode="after")
    def _one_zone(self) -> Self:
        scales = {spec.scale.name for spec in self.specs}
        given = [name for name in ("unc_low", "unc_high", "range_thresholds") if getattr(self, name) not in (None, ())]
        if given and len(scales) > 1:
            raise ValueError(f"{', '.join(given)}: the prompts score on several scales ({', '.join(sorted(scales))})")
        for spec in self.specs:
            self.check_method(spec)
            low, high = self.zone(spec)
            if low > high:
                raise ValueError(f"unc_low {low} lies above unc_high {high}")
        return self

    @property
    def specs(self) -> Sequence[PromptSpec]:
        """The prompts themselves."""
        return [self.asked_with(prompt) for prompt in self.prompts]

    def zone(self, prompt: PromptSpec) -> tuple[float, float]:
        """Return the scores between which a prompt's judge counts as uncertain."""
        low, high = _ZONES[prompt.scale.name]
        return low if self.unc_low is None else self.unc_low, high if self.unc_high is None else self.unc_high

    def ranges(self, prompt: PromptSpec) -> tuple[float, ...]:
        """Return the spreads of scores that are counted."""
        return self.range_thresholds or _RANGES[prompt.scale.name]

    def growing_texts(self) -> dict[str, str]:
        """Return the prompts' texts: a prompt that is changed is asked again, the others stay."""
        return {f"prompt {name}": repr(get_prompt(name)) for name in self.prompts}


def cell_label(prompt: PromptSpec) -> str:
    """Return what a prompt's cells are called: another text is another cell."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', prompt.name)}-{stable_hash(repr(prompt), length=6)}"
