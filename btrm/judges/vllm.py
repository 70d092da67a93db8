"""The `vllm` engine: continuous batching, prefix cache, adapters swapped on one loaded model; CPU and GPU alike."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from btrm.judges.base import JudgeAnswer, JudgeRequest, Sampling
from btrm.judges.chat import Chat
from btrm.judges.engine import BATCH_SIZES, EngineSpec, ask_texts
from btrm.judges.reproduce import VARIABLE, Invariance, vllm_invariance
from btrm.judges.score_tree import Logprobs, Query
from btrm.judges.vllm_logprobs import cache_tokens, node_logprobs

_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the engine takes no others as its maximum
# An engine keeps the weights that it first saw under an id, whatever the file holds later: never use an id twice.
_LORA_IDS = count(1)
_ENVIRONMENT = {
    "VLLM_PLUGINS": "",  # ms-swift registers one that imports torchvision
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # per-request seeds and a clean end without a second process
    "VLLM_NO_USAGE_STATS": "1",
}
_DEFAULTS = {"VLLM_LOGGING_LEVEL": "ERROR"}


@contextmanager
def vllm_environment(batches: Invariance = "off") -> Generator[None]:
    """Run vLLM under its settings and leave the caller's environment as it was: LLM() itself edits os.environ."""
    before = dict(os.environ)
    os.environ.update({**{k: v for k, v in _DEFAULTS.items() if k not in before}, **_ENVIRONMENT})
    if batches == "on":
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _process_state() -> Generator[None]:
    """Leave the process as it was: LLM() seeds the global random generators and binds threads to cores."""
    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)


@contextmanager
def vllm_process() -> Generator[None]:
    """Run what imports or builds vLLM in here: its settings hold, and the process comes out as it went in."""
    with vllm_environment(), _process_state():
        yield


@contextmanager
def open_vllm(spec: EngineSpec) -> Generator[VllmEngine]:
    """Start an engine on a model; shut it down at the end, so that the next one finds the memory free."""
    with open_llm(spec) as (chat, llm):
        yield VllmEngine(spec, chat, llm, vllm_invariance(spec.batch_invariant))


@contextmanager
def open_llm(spec: EngineSpec) -> Generator[tuple[Chat, Any]]:
    """Start vLLM's own LLM on a model, with the model's chat; `vllm_environment` has to stand while it works."""
    with vllm_process():
        if vllm_invariance(spec.batch_invariant) == "on":
            os.environ[VARIABLE] = "1"  # before the import, which reads it
        from vllm import LLM

        chat = Chat.open(spec.model, spec.max_length)
        llm: Any = LLM(**engine_arguments(spec, chat.max_length))
    try:
        yield chat, llm
    finally:
        with vllm_environment():
            llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()


def engine_arguments(spec: EngineSpec, max_length: int) -> dict[str, Any]:
    """Return the arguments of LLM(): the same for CPU and GPU but for memory and what the CPU build cannot do."""
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "model": spec.model,
        "dtype": own_dtype(spec.model) if spec.dtype == "auto" else spec.dtype,
        "max_model_len": max_length,
        "enable_prefix_caching": True,
        "tensor_parallel_size": spec.tensor_parallel,
        "disable_log_stats": True,
        "max_logprobs": -1,  # a release without logprobs of chosen tokens is asked for those of all
    }
    if spec.adapter_rank:
        rank = next(r for r in _LORA_RANKS if r >= spec.adapter_rank)
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
    if current_platform.is_cpu():
        return arguments | {
            "enforce_eager": True,
            "block_size": 64,  # by default 128: a prompt's last block is read anew for each place of a score tree
            "max_num_seqs": spec.batch_size or BATCH_SIZES["vllm"],
            "kv_cache_memory_bytes": spec.kv_cache_mb * 2**20,
            "enable_chunked_prefill": False,  # per-request seeds crash with it there
            "max_num_batched_tokens": max(2048, max_length),
        }
    if spec.batch_size:
        arguments["max_num_seqs"] = spec.batch_size
    return arguments | {"gpu_memory_utilization": spec.gpu_memory_utilization}


def own_dtype(model: str) -> str:
    """Return the type that a model's weights were saved in, as `auto` means it; vLLM's own auto halves float32."""
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(model)
    return str(config.dtype or "auto").removeprefix("torch.")


class VllmEngine:
    """Requests of both sides of a pair go in side by side, so that the shared prefix is in the cache."""

    def __init__(self, spec: EngineSpec, chat: Chat, llm: Any, batches: Invariance) -> None:
        self.batches: Invariance = batches
        self._spec = spec
        self._chat = chat
        self._llm = llm
        self._lora: Any = None
        self._pattern: str | None = None

    def select(self, adapter: Path | None) -> None:
        """Answer as this adapter from now on; None is the model itself."""
        from vllm.lora.request import LoRARequest

        number = next(_LORA_IDS)
        self._lora = None if adapter is None else LoRARequest(f"adapter-{number}", number, str(adapter))

    def guide(self, pattern: str | None) -> None:
        """Generate only what matches from now on; None: anything."""
        self._pattern = pattern

    @property
    def chat(self) -> Chat:
        """The model's tokenizer, template and longest sequence."""
        return self._chat

    @property
    def dtype(self) -> str:
        """The type of the weights in use."""
        return str(self._llm.llm_engine.model_config.dtype).removeprefix("torch.")

    def ask(self, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        """Return one answer a request, in order."""
        return ask_texts(self, requests, self._spec.sampling.max_new_tokens)

    def sample(self, requests: Sequence[JudgeRequest], prompts: Sequence[list[int]]) -> list[list[list[int]]]:
        """Return what is generated, by request and sample."""
        end_ids = self._chat.end_ids
        sampling, pattern = self._spec.sampling, self._pattern
        parameters = [sampling_parameters(sampling, request, end_ids, pattern) for request in requests]
        return [
            [list(sample.token_ids) for sample in sorted(output.outputs, key=lambda sample: sample.index)]
            for output in self._run(prompts, parameters)
        ]

    def node_logprobs(self, queries: Sequence[Query]) -> list[Logprobs]:
        """Return logprob_E of each query's tree after its prompt; -inf below places hardly ever reached."""
        return node_logprobs(self._run, queries, cache_tokens(self._llm))

    def _run(self, prompts: Sequence[Sequence[int]], parameters: Sequence[Any]) -> list[Any]:
        if not prompts:
            return []
        with vllm_environment(self.batches):
            return self._llm.generate(
                [{"prompt_token_ids": list(prompt)} for prompt in prompts],
                list(parameters),
                use_tqdm=False,
                lora_request=self._lora,
            )


def sampling_parameters(
    sampling: Sampling, request: JudgeRequest, end_ids: frozenset[int], pattern: str | None = None
) -> Any:
    """Return vLLM's parameters for one request: sample j of n is drawn with seed + j, and all match the pattern."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    return SamplingParams(
        n=request.n_samples,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_new_tokens,
        seed=request.seed,
        stop_token_ids=sorted(end_ids),
        structured_outputs=None if pattern is None else StructuredOutputsParams(regex=pattern),
        detokenize=False,  # the text is made by Chat, which keeps score tags
    )
