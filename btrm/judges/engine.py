"""What the grid needs of something that generates: opened on one model, switched between its adapters, closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from btrm.judges.base import Judge, JudgeAnswer, JudgeRequest, Sampling, too_long
from btrm.judges.chat import Chat
from btrm.judges.reproduce import BatchInvariant, Invariance
from btrm.judges.score_tree import Logprobs, Query

# A step of a small engine costs much the same for 64 sequences as for 256; padded batches cost by their widest row.
BATCH_SIZES = {"transformers": 64, "vllm": 256}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One model with room for its adapters, and how to draw from it.

    `adapter_rank` 0: no adapter will come. `batch_size` None: the engine's own.
    """

    model: str
    adapter_rank: int
    sampling: Sampling
    dtype: str
    max_length: int
    batch_size: int | None
    kv_cache_mb: int
    gpu_memory_utilization: float
    tensor_parallel: int
    batch_invariant: BatchInvariant = "off"


class Engine(Judge, Protocol):
    """A judge on one loaded model."""

    def select(self, adapter: Path | None) -> None:
        """Answer as this adapter from now on; None is the model itself."""
        ...


class TokenEngine(Engine, Protocol):
    """An engine that also tells what stands behind its texts: token ids and probabilities."""

    @property
    def chat(self) -> Chat:
        """The model's tokenizer, template and longest sequence."""
        ...

    @property
    def batches(self) -> Invariance:
        """Whether answers depend on what is asked beside them."""
        ...

    @property
    def dtype(self) -> str:
        """The type of the weights in use, as torch calls it: bfloat16."""
        ...

    def sample(self, requests: Sequence[JudgeRequest], prompts: Sequence[list[int]]) -> list[list[list[int]]]:
        """Return what is generated, by request and sample, after prompts that fit."""
        ...

    def node_logprobs(self, queries: Sequence[Query]) -> list[Logprobs]:
        """Return logprob_E of each query's tree after its prompt: natural logs at temperature 1, nothing cut off."""
        ...


def ask_texts(engine: TokenEngine, requests: Sequence[JudgeRequest], max_new_tokens: int) -> list[JudgeAnswer]:
    """Answer requests with what an engine samples; a prompt that leaves no room gets its own outcome."""
    chat = engine.chat
    prompts = chat.encode(requests)
    answers = [too_long(r.n_samples, len(p)) for r, p in zip(requests, prompts, strict=True)]
    fits = [i for i, prompt in enumerate(prompts) if chat.fits(prompt, max_new_tokens)]
    sampled = engine.sample([requests[i] for i in fits], [prompts[i] for i in fits])
    for i, samples in zip(fits, sampled, strict=True):
        answers[i] = JudgeAnswer(tuple(chat.completion(ids) for ids in samples), len(prompts[i]))
    return answers


OpenEngine = Callable[[EngineSpec], AbstractContextManager[Engine]]
