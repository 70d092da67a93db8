"""Log-probabilities at the places of score trees from vLLM, which takes prompts: one for each place, prefix cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from btrm.judges.score_tree import Logprobs, Node, Query

Run = Callable[[Sequence[Sequence[int]], Sequence[Any]], list[Any]]
# Places that the model reaches less often are left out at first; asked after all, where what they could hold is more
# than this share of the mass. A score on 0-100 is then within 1e-5 of what the whole tree gives.
UNLIKELY = 1e-8
_SHARE = 1e-7


def node_logprobs(run: Run, queries: Sequence[Query], tokens_at_once: int) -> list[Logprobs]:
    """Return logprob_E of each query's tree: natural logs at temperature 1, -inf below places hardly ever reached.

    `run` generates; parents are asked about before their children, some queries at a time so that a prompt is still in
    the cache when its children are.
    """
    found: list[Logprobs] = []
    for group in _groups(queries, tokens_at_once):
        asked = [Asked(query, np.full(query.tree.n_edges, -np.inf)) for query in group]
        _ask(run, asked, UNLIKELY)
        _ask(run, [one for one in asked if one.missed() > _SHARE * one.mass()], 0.0)
        found += [one.logprob_E for one in asked]
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, and what is known of its edges; -inf: not asked."""

    query: Query
    logprob_E: Logprobs

    def reach(self, node: Node) -> float:
        """Return how likely the model comes to a place; 0 where a place on the way was not asked about."""
        return float(np.exp(self.logprob_E[list(node.above)].sum()))

    def open_nodes(self) -> list[Node]:
        """Return the places that were not asked about."""
        return [node for node in self.query.tree.nodes if np.isneginf(self.logprob_E[node.first])]

    def missed(self) -> float:
        """Return the most probability that may lie behind places not asked about."""
        return sum(map(self.reach, self.open_nodes()))

    def mass(self) -> float:
        """Return the mass as far as it is known."""
        return self.query.tree.expectation(self.logprob_E).mass


def cache_tokens(llm: Any) -> int:
    """Return how many tokens of prompts may be at work at once: half of the key-value cache."""
    cache = llm.llm_engine.vllm_config.cache_config
    return max((cache.num_gpu_blocks or 0) * cache.block_size // 2, 1)


def _groups(queries: Sequence[Query], tokens_at_once: int) -> Iterator[list[Query]]:
    ends = np.cumsum([len(query.prompt) for query in queries])
    for _, numbers in groupby(range(len(queries)), key=lambda i: ends[i] // tokens_at_once):
        yield [queries[i] for i in numbers]


def _ask(run: Run, asked: Sequence[Asked], least: float) -> None:
    """Fill in the edges of open places that are reached more often than `least`, level by level."""
    for depth in sorted({len(node.above) for one in asked for node in one.query.tree.nodes}):
        places = [
            (one, node)
            for one in asked
            for node in one.open_nodes()
            if len(node.above) == depth and one.reach(node) > least
        ]
        parameters = {node.children: _parameters(node) for _, node in places}
        prompts = [[*one.query.prompt, *node.tokens] for one, node in places]
        outputs = run(prompts, [parameters[node.children] for _, node in places])
        for output, (one, node) in zip(outputs, places, strict=True):
            of_token = output.outputs[0].logprobs[0]
            edges = slice(node.first, node.first + len(node.children))
            one.logprob_E[edges] = [of_token[token].logprob for token in node.children]


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
