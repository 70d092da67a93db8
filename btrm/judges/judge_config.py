"""What the `judge` stage is told."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import field_validator, model_validator

from btrm.config import extent, members, runtime, setting, source
from btrm.judges.base import MAX_SAMPLES, Sampling
from btrm.prompts import get_prompt
from btrm.runs import StageConfig

# Eight batches of a large engine: less than a tenth is lost to the last one's idling, and seconds to minutes to a kill.
_PART_ANSWERS = 2000


class JudgeConfig(StageConfig):
    """Which checkpoints judge which pairs, how often, and how."""

    checkpoints: dict[str, str] = members(
        default={"sft": "@merge/model", "grpo": "@grpo/checkpoints/checkpoint-*"},
        help="{label: model or LoRA folder}; a glob gives one checkpoint a folder, by its name",
    )
    base: str | None = source("@merge/model", "the model that the LoRA checkpoints stand on (none: no LoRA here)")
    pairs: str = source("@pairs/test.pairs.parquet", "the pairs to judge")
    n_pairs: int | None = extent(2000, "judge the first n pairs (none: all)", ge=1, published="N_PAIRS")
    seeds: tuple[int, ...] = extent((0, 1, 2), "one cell for each seed and checkpoint", min_length=1)
    prompt: str = setting("toy_score100", "the prompt; its parser reads the answers", published="EVAL_PROMPT")
    engine: Literal["transformers", "vllm"] = setting("transformers", "what generates")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting("auto", "the weights' type")
    n_samples: int = setting(2, "answers a side", ge=1, le=MAX_SAMPLES)
    temperature: float = setting(0.7, "0 is greedy", ge=0)
    top_p: float = setting(0.9, "nucleus: the smallest set of tokens with this mass", gt=0, le=1)
    top_k: int = setting(50, "most likely tokens kept (0: all)", ge=0)
    max_new_tokens: int = setting(128, "longest answer, in tokens", ge=1, published="MAX_NEW_TOKENS")
    max_length: int = setting(4096, "longest prompt and answer together, in tokens", ge=2)
    part_pairs: int | None = runtime(
        None, "pairs a part; what is done survives a kill part by part (none: as many as make 2,000 answers)", ge=1
    )
    batch_size: int | None = runtime(
        None, "sequences at a time (none: 64 with transformers, 256 with vllm on CPU; vllm on GPU decides itself)", ge=1
    )
    kv_cache_mb: int = runtime(512, "vllm on CPU: memory of the key-value cache", ge=1)
    gpu_memory_utilization: float = runtime(0.9, "vllm on GPU: share of the memory to take", gt=0, le=1)
    tensor_parallel: int = runtime(1, "vllm on GPU: GPUs that share one model", ge=1)

    @field_validator("prompt")
    @classmethod
    def _known_prompt(cls, value: str) -> str:
        return get_prompt(value) and value

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("the same seed twice would be the same cell twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.temperature == 0 and (self.n_samples > 1 or len(self.seeds) > 1):
            raise ValueError("temperature 0 gives one answer: take n_samples 1 and one seed")
        if self.max_new_tokens >= self.max_length:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} leaves no room in max_length {self.max_length}")
        return self

    @property
    def pairs_at_once(self) -> int:
        """How many pairs are asked about before what they were answered is committed."""
        return self.part_pairs or max(_PART_ANSWERS // (2 * self.n_samples), 1)

    @property
    def sampling(self) -> Sampling:
        """How completions are drawn."""
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_new_tokens)
