"""Log-probabilities at the places of score trees from vLLM, which takes prompts: one for each place, prefix cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from btrm.judges.score_tree import Logprobs, Node, Query

Run = Callable[[Sequence[Sequence[int]], Sequence[Any]], list[Any]]
# Places that the model reaches less often are left out: at most this much of the mass for each, below what two engines
# differ by.
UNLIKELY = 1e-6


def node_logprobs(run: Run, queries: Sequence[Query], tokens_at_once: int) -> list[Logprobs]:
    """Return logprob_E of each query's tree: natural logs at temperature 1, -inf below places that are UNLIKELY.

    `run` generates; parents are asked about before their children, some queries at a time so that a prompt is still in
    the cache when its children are.
    """
    found: list[Logprobs] = []
    for group in _groups(queries, tokens_at_once):
        logprobs = [np.full(query.tree.n_edges, -np.inf) for query in group]
        depths = sorted({len(node.above) for query in group for node in query.tree.nodes})
        for depth in depths:
            _ask_level(run, group, logprobs, depth)
        found += logprobs
    return found


def cache_tokens(llm: Any) -> int:
    """Return how many tokens of prompts may be at work at once: half of the key-value cache."""
    cache = llm.llm_engine.vllm_config.cache_config
    return max((cache.num_gpu_blocks or 0) * cache.block_size // 2, 1)


def _groups(queries: Sequence[Query], tokens_at_once: int) -> Iterator[list[Query]]:
    ends = np.cumsum([len(query.prompt) for query in queries])
    for _, numbers in groupby(range(len(queries)), key=lambda i: ends[i] // tokens_at_once):
        yield [queries[i] for i in numbers]


def _ask_level(run: Run, queries: Sequence[Query], logprobs: Sequence[Logprobs], depth: int) -> None:
    """Fill in the edges of all places that lie below `depth` others."""
    asked = [
        (query, node, logprob_E)
        for query, logprob_E in zip(queries, logprobs, strict=True)
        for node in query.tree.nodes
        if len(node.above) == depth and np.exp(logprob_E[list(node.above)].sum()) >= UNLIKELY
    ]
    parameters = {node.children: _parameters(node) for _, node, _ in asked}
    prompts = [[*query.prompt, *node.tokens] for query, node, _ in asked]
    outputs = run(prompts, [parameters[node.children] for _, node, _ in asked])
    for output, (_, node, logprob_E) in zip(outputs, asked, strict=True):
        of_token = output.outputs[0].logprobs[0]
        logprob_E[node.first : node.first + len(node.children)] = [of_token[t].logprob for t in node.children]


def _parameters(node: Node) -> Any:
    """Ask for one token and the probabilities of a place's children, before any sampling setting.

    Older releases know no chosen tokens; they are asked for the whole vocabulary, which is slow.
    """
    from vllm import SamplingParams

    fields = set(SamplingParams.__annotations__)
    wanted: dict[str, Any] = (
        {"logprob_token_ids": list(node.children)} if "logprob_token_ids" in fields else {"logprobs": -1}
    )
    return SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, **wanted)
