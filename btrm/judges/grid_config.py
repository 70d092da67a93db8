"""What every stage that asks a grid of cells is told: data sets, seeds, sampling, the engine."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from btrm.config import extent, members, runtime, setting
from btrm.judges.base import MAX_SAMPLES, MIN_MASS, Sampling
from btrm.prompts import PromptSpec, get_prompt
from btrm.runs import StageConfig

# Eight batches of a large engine: less than a tenth is lost to the last one's idling, and seconds to minutes to a kill.
_ANSWERS_AT_ONCE = 2000
_FEW_PAIRS = 8  # many seeds are no reason for parts of a pair each
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


class GridConfig(StageConfig):
    """Which pairs are judged, how often, and how."""

    pairs: dict[str, str] = members(
        default={"test": "@pairs/test.pairs.parquet"},
        once_source=True,
        help="{data set: pairs to judge}; a path alone is called what its file is, up to the first dot",
    )
    n_pairs: int | None = extent(2000, "judge the first n pairs of each (none: all)", ge=1, published="N_PAIRS")
    seeds: tuple[int, ...] = extent((0, 1, 2), "one cell for each seed", min_length=1)
    engine: Literal["transformers", "vllm"] = setting("transformers", "what generates")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "the weights' type (auto: as they were saved)"
    )
    method: Literal["sampled", "expected", "greedy"] = setting(
        "sampled", "sampled answers, the expected score of each answer, or the likeliest answer", later=True
    )
    min_mass: float = setting(
        MIN_MASS, "expected: unparsed where less probability than this lies on scores", ge=0, le=1, later=True
    )
    system: str | None = setting(
        None, "system prompt (none: the prompt's own; empty: an empty one, where a template would add one)", later=True
    )
    guided: Literal["off", "score"] = setting(
        "off", "score: vllm may only write answers that hold a score of the scale", later=True
    )
    batch_invariant: Literal["auto", "off"] = setting(
        "auto", "vllm on GPU: answers that do not depend on the batch, where release and GPU can", later=True
    )
    n_samples: int = setting(2, "answers a side", ge=1, le=MAX_SAMPLES)
    temperature: float = setting(0.7, "0 is greedy", ge=0)
    top_p: float = setting(0.9, "nucleus: the smallest set of tokens with this mass", gt=0, le=1)
    top_k: int = setting(50, "most likely tokens kept (0: all)", ge=0)
    max_new_tokens: int = setting(128, "longest answer, in tokens", ge=1, published="MAX_NEW_TOKENS")
    max_length: int = setting(4096, "longest prompt and answer together, in tokens", ge=2)
    part_pairs: int | None = runtime(
        None, "pairs a part, of all seeds at once; parts survive a kill (none: as many as make 2,000 answers)", ge=1
    )
    guided_check: int = runtime(32, "guided: pairs asked about without it too, for the unparsed rate of both", ge=0)
    flip_check: int | None = runtime(
        None, "pairs asked about twice, to count answers that change (none: 32 on a GPU that may, else 0)", ge=0
    )
    batch_size: int | None = runtime(
        None, "sequences at a time (none: 64 with transformers, 256 with vllm on CPU; vllm on GPU decides itself)", ge=1
    )
    kv_cache_mb: int = runtime(512, "vllm on CPU: memory of the key-value cache", ge=1)
    gpu_memory_utilization: float = runtime(0.9, "vllm on GPU: share of the memory to take", gt=0, le=1)
    cells_per_gpu: int = runtime(
        1, "processes that share a device, each with its part of the memory or the cores: for small models", ge=1, le=64
    )
    tensor_parallel: int = runtime(1, "vllm on GPU: GPUs that share one model", ge=1)

    @field_validator("pairs", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """Name data sets that are given by path alone: `a.parquet,b.parquet`."""
        if not isinstance(value, str):
            return value
        references = [reference.strip() for reference in value.split(",") if reference.strip()]
        names = [dataset_name(reference) for reference in references]
        if len(set(names)) != len(names):
            raise ValueError("two files are called alike: name them, as in --pairs a=FILE,b=FILE")
        return dict(zip(names, references, strict=True))

    @field_validator("pairs")
    @classmethod
    def _nameable(cls, value: dict[str, str]) -> dict[str, str]:
        wrong = [name for name in value if not _NAME.match(name)]
        if wrong:
            raise ValueError(f"data set {', '.join(map(repr, wrong))}: letters, digits, dash and underscore only")
        if not value:
            raise ValueError("no pairs to judge")
        return value

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("the same seed twice would be the same cell twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.sampling.temperature == 0:
            self._ask_once("greedy" if self.method == "greedy" else "temperature 0")
        if self.guided == "score" and self.engine != "vllm":
            raise ValueError(f"guided score: {self.engine} decodes freely only; take engine vllm")
        if (gpus := self.tensor_parallel) > 1 and self.engine != "vllm":
            raise ValueError(f"tensor_parallel {gpus}: {self.engine} takes one GPU for a model; take engine vllm")
        if gpus > 1 and self.cells_per_gpu > 1:
            raise ValueError(f"cells_per_gpu {self.cells_per_gpu}: a model on {gpus} GPUs shares none")
        if self.max_new_tokens >= self.max_length:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} leaves no room in max_length {self.max_length}")
        return self

    @property
    def pairs_a_part(self) -> int:
        """How many pairs of a cell are committed together: all seeds' answers about them come at the same time."""
        of_a_seed = max(_ANSWERS_AT_ONCE // (2 * self.n_samples), 1)
        return self.part_pairs or max(of_a_seed // len(self.seeds), min(of_a_seed, _FEW_PAIRS))

    @property
    def pairs_at_once(self) -> int:
        """How many pairs of cells are asked about at a time."""
        return self.pairs_a_part * len(self.seeds)

    @property
    def sampling(self) -> Sampling:
        """How completions are drawn."""
        temperature = 0.0 if self.method == "greedy" else self.temperature
        return Sampling(temperature, self.top_p, self.top_k, self.max_new_tokens)

    def asked_with(self, prompt: str) -> PromptSpec:
        """Return a prompt with the system prompt that is sent; ConfigError for an unknown one."""
        spec = get_prompt(prompt)
        return spec if self.system is None else replace(spec, system=self.system)

    def check_method(self, prompt: PromptSpec) -> None:
        """Refuse what the method makes pointless with a prompt; ValueError."""
        if self.method == "expected" and prompt.style != "reason_first":
            self._ask_once(f"method expected with {prompt.name} ({prompt.style})")
            if self.guided == "score":
                raise ValueError(f"method expected with {prompt.name} ({prompt.style}) generates nothing to be guided")

    def _ask_once(self, what: str) -> None:
        if self.n_samples > 1 or len(self.seeds) > 1:
            raise ValueError(f"{what} gives one answer: take n_samples 1 and one seed")


def dataset_name(reference: str) -> str:
    """Return what a data set is called that is given by path alone: its file's name up to the first dot."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", PurePath(reference).name.partition(".")[0])
