"""What the `teacher` stage is told."""

from __future__ import annotations

import re
from typing import Any, Literal, Self, cast

from pydantic import field_validator, model_validator
from pydantic_core import PydanticCustomError

from btrm.config import SECRET, extent, nearest, runtime, setting, source
from btrm.judges.base import MAX_SAMPLES
from btrm.judges.rule import RULES
from btrm.prompts import get_prompt
from btrm.runs import StageConfig
from btrm.scores import SCALES
from btrm.teacher.base import Form, Layout
from btrm.teacher.teacher_prompts import get_teacher_prompt

APIS = ("anthropic", "gemini", "openai")
BACKENDS = (*APIS, "vllm", *RULES)
THINKING_ROOM = 4096  # tokens a call, for models that think unasked; what they think counts as answer
_PAIRS = "@pairs/train.pairs.parquet"
# Models that think unless they are told not to, and those that cannot be told so.
_THINKS = {
    "openai": re.compile(r"\b(gpt-[5-9]|gpt-oss|o[1-9]\b)"),
    "gemini": re.compile(r"\bgemini-(2\.5|[3-9]|[\w-]+-latest)"),
}
_ALWAYS_THINKS = re.compile(r"\bgemini-(2\.5|[3-9][.\d]*)-pro")
_SECRET = re.compile(r"^([\w+.-]*://)?[^/?#]*@|[?&]([a-z0-9]+[-_.])*(api)?(key|token|secret|password)=", re.I)


class TeacherConfig(StageConfig):
    """Whom to ask about which pairs, how, how fast, and for how much."""

    pairs: str = source(_PAIRS, "the pairs to judge")
    split: str | None = setting(None, "judge @pairs/SPLIT.pairs.parquet (instead of --pairs)")
    backend: str = setting("rule_random", "who answers: " + ", ".join(BACKENDS))
    model: str | None = setting(None, "an API's name of its model; with vllm a model's folder or hub name")
    weights: str | None = source(None, "vllm: what --model names; filled in from there")
    prompt: str = setting("toy_score100", "the student's prompt, which the answers are written for")
    scale: str | None = setting(None, "the prompt's scale, where it should be named: " + ", ".join(SCALES))
    teacher_prompt: str = setting("auto", "what the teacher is told: auto, summary, dialog, general, or FILE.py:NAME")
    layout: Literal["pointwise", "pairwise"] = setting(
        "pointwise", "responses by themselves, or both of a pair in one call, in an order drawn by seed and pair_id"
    )
    batch_size: int = setting(1, "pointwise: responses a call, each of another pair", ge=1, le=100)
    structured: Literal["auto", "schema", "tags"] = setting(
        "auto", "answers as JSON by a schema, or as marked sections; auto: by a schema where the backend has it"
    )
    n_pairs: int | None = extent(None, "how many pairs to judge (none: all)", ge=1)
    skip_pairs: int = setting(0, "leave out this many pairs at the start", ge=0)
    n_samples: int = setting(1, "answers a response", ge=1, le=MAX_SAMPLES)
    seed: int = setting(0, "seed of the answers (where the backend takes one), of orders and of marks")
    temperature: float | None = setting(None, "0 is greedy (none: the API's own; vllm: 0.7)", ge=0)
    top_p: float | None = setting(None, "nucleus (none: the API's own)", gt=0, le=1)
    max_tokens: int = extent(
        1024,
        "longest answer about one response, in tokens, without thinking; another value leaves answers as they are",
        ge=1,
    )
    thinking_budget: int | None = setting(
        None,
        "tokens of thinking before an answer, where the API has them, on top of max_tokens "
        f"(none: {THINKING_ROOM} for models of gemini and openai that think unasked)",
        ge=0,
    )
    max_length: int = setting(8192, "vllm: longest prompt and answer together, in tokens", ge=2)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting("auto", "vllm: the weights' type")

    base_url: str | None = runtime(None, "where the API answers (none: its own address), as http://host:8000/v1")
    api_key_file: str | None = runtime(None, "a file of mode 0600 with the key (none: the environment, or .env)")
    mode: Literal["direct", "batch"] = runtime("direct", "batch: the API's batch mode, at half the price, in hours")
    poll_s: float = runtime(60.0, "batch: seconds between looks", gt=0)
    stream: bool = runtime(False, "read answers as they are written: for long ones, and strict proxies")
    concurrency: int = runtime(16, "calls under way at a time in each shard", ge=1, le=4096)
    rpm: int | None = runtime(None, "requests a minute, of all shards together", ge=1)
    tpm: int | None = runtime(None, "tokens a minute, in and out, of all shards together", ge=1)
    budget_usd: float | None = runtime(None, "stop before more than this is spent, by all shards together", gt=0)
    prices: str | None = runtime(None, "a TOML file with prices that go before the built-in ones")
    max_attempts: int = runtime(8, "tries of a call whose failures may pass", ge=1)
    timeout_s: float = runtime(300.0, "seconds that a call may take", gt=0)
    prompt_cache: Literal["auto", "on", "off"] = runtime(
        "auto", "mark what calls about a pair share as cacheable, where the API wants that; auto: where it is cheaper"
    )
    resume: bool = runtime(True, "go on from what is on disk; false: refuse where anything is")
    part_pairs: int = runtime(2000, "pairs a part of the result; answers are safe one by one, before that", ge=1)
    kv_cache_mb: int = runtime(512, "vllm on CPU: memory of the key-value cache", ge=1)
    gpu_memory_utilization: float = runtime(0.9, "vllm on GPU: share of the memory to take", gt=0, le=1)
    tensor_parallel: int = runtime(1, "vllm on GPU: GPUs that share one model", ge=1)

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, value: str) -> str:
        if value not in BACKENDS:
            raise ValueError(f"no such teacher{nearest(value, BACKENDS)}")
        return value

    @field_validator("base_url")
    @classmethod
    def _with_scheme(cls, value: str | None) -> str | None:
        if value is not None and _SECRET.search(value):
            raise PydanticCustomError(
                SECRET,
                "this address, not repeated here, holds a password, a key or a token, and would be written into files; "
                "leave that out, and give the key in the environment, in .env or by --api-key-file",
            )
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value} is no address of a server: it begins with http:// or https://")
        return value

    @field_validator("prompt")
    @classmethod
    def _known_prompt(cls, value: str) -> str:
        return get_prompt(value) and value

    @field_validator("teacher_prompt")
    @classmethod
    def _known_teacher_prompt(cls, value: str) -> str:
        return get_teacher_prompt(value, student="") and value

    @model_validator(mode="before")
    @classmethod
    def _inputs(cls, values: Any) -> Any:
        """Turn a split into its file; the name of a model is an input where its weights are read."""
        given = cast("dict[str, Any]", values)
        given = {**given, "weights": given.get("model") if given.get("backend") == "vllm" else None}
        if (split := given.get("split")) is None:
            return given
        mine = f"@pairs/{split}.pairs.parquet"
        if given.get("pairs", mine) not in {_PAIRS, mine}:
            raise ValueError(f"split {split} means pairs {mine}, and pairs is {given['pairs']}: give one of them")
        return {**given, "pairs": mine}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems: list[str] = []
        scale = get_prompt(self.prompt).scale.name
        if self.scale is not None and self.scale != scale:
            problems.append(f"scale {self.scale}: prompt {self.prompt} has {scale}; give a prompt of that scale too")
        if self.backend in (*APIS, "vllm") and not self.model:
            problems.append(f"backend {self.backend} needs a model")
        if self.layout == "pairwise" and self.batch_size != 1:
            problems.append(f"pairwise asks about both responses of one pair: batch_size 1, not {self.batch_size}")
        if self.backend == "anthropic" and self.thinking_budget and self.structured == "schema":
            problems.append("structured schema: anthropic cannot be held to one while it thinks; tags can")
        if self.backend == "anthropic" and self.thinking_budget and self.thinking_budget < 1024:
            problems.append(f"thinking_budget {self.thinking_budget}: anthropic takes 0 or at least 1024")
        if self.backend == "anthropic" and self.thinking_budget and self.temperature not in {None, 1}:
            problems.append(f"temperature {self.temperature:g}: while anthropic's models think it is 1, or not given")
        if self.backend == "anthropic" and (self.temperature or 0) > 1:
            problems.append(f"temperature {self.temperature:g}: anthropic takes 0 to 1")
        if self.backend == "gemini" and self.thinking_budget == 0 and _ALWAYS_THINKS.search(self.model or ""):
            problems.append(f"thinking_budget 0: {self.model} always thinks; give it at least 128, or none")
        if self.temperature == 0 and self.n_samples > 1:
            problems.append(f"temperature 0 gives one answer, not n_samples {self.n_samples}")
        if self.mode == "batch" and self.backend not in {"anthropic", "gemini"}:
            problems.append(f"mode batch: {self.backend} has none here; anthropic and gemini have")
        if self.mode == "batch" and self.stream:
            problems.append("mode batch has nothing to stream")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def thinking_room(self) -> int:
        """How many tokens a call's answer may have for thinking, on top of max_tokens for each response."""
        if self.thinking_budget is not None:
            return self.thinking_budget
        thinks = _THINKS.get(self.backend)
        return THINKING_ROOM if thinks and thinks.search(self.model or "") else 0

    @property
    def call_layout(self) -> Layout:
        """The layout with its number of responses: one a call, several, or both of a pair."""
        return "pairwise" if self.layout == "pairwise" else "pointwise" if self.batch_size == 1 else "batched"

    @property
    def call_form(self) -> Form:
        """The form of answers; auto: by a schema wherever the backend can be held to one."""
        if self.structured != "auto":
            return self.structured
        # Anthropic's API is held to a schema by a forced tool, and none can be forced while the model thinks.
        thinks = self.backend == "anthropic" and self.thinking_budget
        return "tags" if thinks or self.backend in RULES else "schema"

    def named_texts(self) -> dict[str, str]:
        """Return what the teacher is told; a rule does not read it."""
        if self.backend in RULES or ".py:" in self.teacher_prompt:
            return {}
        student = get_prompt(self.prompt)
        prompt = get_teacher_prompt(self.teacher_prompt, student.name)
        text = prompt.system(student.scale, self.call_layout, self.call_form)
        return {f"teacher prompt {prompt.name}": text}

    @property
    def judge(self) -> str:
        """The name that judgements are recorded under."""
        return f"{self.backend}:{self.model}" if self.model else self.backend
