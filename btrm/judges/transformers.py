"""The `transformers` engine: needs no more than torch and transformers, on CPU or GPU."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from btrm.judges.base import JudgeAnswer, JudgeRequest
from btrm.judges.chat import Chat
from btrm.judges.decode import Family, generate
from btrm.judges.engine import BATCH_SIZES, EngineSpec, ask_texts
from btrm.judges.reproduce import Invariance
from btrm.judges.score_tree import Logprobs, Query
from btrm.judges.token_rows import node_logprobs


@contextmanager
def open_transformers(spec: EngineSpec) -> Generator[TransformersEngine]:
    """Load a model on the GPU where there is one; free it at the end."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading has its own bar, for every model, in the middle of ours
    chat = Chat.open(spec.model, spec.max_length)
    model: Any = AutoModelForCausalLM.from_pretrained(spec.model, dtype=spec.dtype)
    engine = TransformersEngine(spec, chat, model.to("cuda" if torch.cuda.is_available() else "cpu").eval())
    try:
        yield engine
    finally:
        del engine, model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class TransformersEngine:
    """Batches of prompts of similar length; a pair's shared prefix is read once."""

    def __init__(self, spec: EngineSpec, chat: Chat, model: Any) -> None:
        self._spec = spec
        self._chat = chat
        self._model: Any = model
        self._adapted = False

    def select(self, adapter: Path | None) -> None:
        """Answer as this adapter from now on; None is the model itself."""
        if self._adapted:
            self._model = self._model.unload()  # the base as it was: nothing was merged into it
        self._adapted = adapter is not None
        if adapter is not None:
            from peft import PeftModel

            self._model = PeftModel.from_pretrained(self._model, str(adapter)).eval()

    @property
    def chat(self) -> Chat:
        """The model's tokenizer, template and longest sequence."""
        return self._chat

    @property
    def batches(self) -> Invariance:
        """Whether answers depend on what is asked beside them."""
        return "cpu" if self._model.device.type == "cpu" else "off"

    @property
    def dtype(self) -> str:
        """The type of the weights in use."""
        return str(self._model.dtype).removeprefix("torch.")

    def ask(self, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        """Return one answer a request, in order."""
        return ask_texts(self, requests, self._spec.sampling.max_new_tokens)

    def sample(self, requests: Sequence[JudgeRequest], prompts: Sequence[list[int]]) -> list[list[list[int]]]:
        """Return what is generated, by request and sample."""
        labels = [request.pair.label_id for request in requests]
        families = [list(places) for _, places in groupby(range(len(requests)), key=lambda i: labels[i])]
        families.sort(key=lambda places: max(len(prompts[i]) for i in places))
        size = self._spec.batch_size or BATCH_SIZES["transformers"]
        found: dict[int, list[list[int]]] = {}
        for batch in _batches(families, [r.n_samples for r in requests], size):
            found |= self._generate(batch, requests, prompts)
        return [found[i] for i in range(len(requests))]

    def node_logprobs(self, queries: Sequence[Query]) -> list[Logprobs]:
        """Return logprob_E of each query's tree after its prompt."""
        return node_logprobs(self._model, queries, self._pad_id)

    @property
    def _pad_id(self) -> int:
        pad_id = self._chat.tokenizer.pad_token_id
        return next(iter(self._chat.end_ids), 0) if pad_id is None else pad_id

    def _generate(
        self, batch: list[list[int]], requests: Sequence[JudgeRequest], prompts: Sequence[list[int]]
    ) -> dict[int, list[list[int]]]:
        families = [
            Family(
                tuple(prompts[i] for i in places),
                tuple(requests[i].n_samples for i in places),
                tuple(requests[i].seed for i in places),
            )
            for places in batch
        ]
        results = generate(self._model, families, self._spec.sampling, sorted(self._chat.end_ids), self._pad_id)
        return {
            place: samples
            for places, family in zip(batch, results, strict=True)
            for place, samples in zip(places, family, strict=True)
        }


def _batches(families: list[list[int]], n_samples: Sequence[int], size: int) -> Iterator[list[list[int]]]:
    """Cut families into batches of at most `size` sequences, of one family at least."""
    batch: list[list[int]] = []
    rows = 0
    for places in families:
        own = sum(n_samples[i] for i in places)
        if batch and rows + own > size:
            yield batch
            batch, rows = [], 0
        batch.append(places)
        rows += own
    if batch:
        yield batch
