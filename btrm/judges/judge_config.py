"""What the `judge` stage is told."""

from __future__ import annotations

from typing import Self

from pydantic import field_validator, model_validator

from btrm.config import members, setting, source
from btrm.judges.grid_config import GridConfig
from btrm.prompts import get_prompt


class JudgeConfig(GridConfig):
    """Which checkpoints judge which pairs, how often, and how."""

    checkpoints: dict[str, str] = members(
        default={"sft": "@merge/model", "grpo": "@grpo/checkpoints/checkpoint-*"},
        help="NAME=model or LoRA folder, or bare: checkpoint-*, base, a path; a glob gives one checkpoint a folder",
    )
    base: str | None = source("@merge/model", "the model that the LoRA checkpoints stand on (none: no LoRA here)")
    prompt: str = setting("toy_score100", "the prompt; its parser reads the answers", published="EVAL_PROMPT")

    @field_validator("prompt")
    @classmethod
    def _known_prompt(cls, value: str) -> str:
        return get_prompt(value) and value

    @model_validator(mode="after")
    def _method_fits_prompt(self) -> Self:
        self.check_method(get_prompt(self.prompt))
        return self
