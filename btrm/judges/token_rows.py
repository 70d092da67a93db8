"""Log-probabilities at the places of score trees, each token of a family of prompts computed once.

Prompts that begin alike (the two sides of a pair, the samples of one side) are read as one tree. What all of them share
is a plain causal pass; the rest is laid into one row where each token sees only what leads to it, and its position is
its depth. It computes what separate passes over whole prompts would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btrm.config import ConfigError
from btrm.judges.only_keys import only_keys
from btrm.judges.score_tree import Logprobs, Query, ScoreTree

if TYPE_CHECKING:
    import torch

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Leaves:
    """A prompt's last token (first here, its id left open) and T - 1 tokens that may follow it.

    `at_N` says behind which of them logits are wanted.
    """

    token_T: Ints
    depth_T: Ints
    seen_TT: Bools
    at_N: Ints


@dataclass(frozen=True, slots=True)
class Row:
    """A family: S tokens that all its prompts share, then Q others, which see `seen_QL` of all L = S + Q.

    The last `n_leaves` are those whose logits are wanted; `at_QN`: query, node -> place among the Q.
    """

    shared_S: Ints
    token_Q: Ints
    position_Q: Ints
    seen_QL: Bools
    at_QN: list[Ints]
    n_leaves: int


LAST = Leaves(np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones((1, 1), np.bool_), np.zeros(1, np.int64))


def pack(family: Sequence[Sequence[int]], leaves: Sequence[Leaves]) -> Row:
    """Lay a family into a row: the prompts' tree, then each prompt's last token with its leaves."""
    prompts = [np.asarray(prompt, np.int64) for prompt in family]
    trunk, positions, trails = _trunk([prompt[:-1] for prompt in prompts])
    shared = min(_shared(trails[0], trail) for trail in trails)
    length = len(trunk) + sum(len(leaf.token_T) for leaf in leaves)
    token_L, position_L = np.zeros(length, np.int64), np.zeros(length, np.int64)
    seen_QL = np.zeros((length - shared, length), np.bool_)
    token_L[: len(trunk)], position_L[: len(trunk)] = trunk, positions
    seen_QL[:, :shared] = True
    for trail in trails:
        own = trail[shared:]
        seen_QL[own[:, None] - shared, own] = np.tri(len(own), dtype=np.bool_)
    start, at_QN = len(trunk), list[Ints]()
    for prompt, trail, leaf in zip(prompts, trails, leaves, strict=True):
        stop = start + len(leaf.token_T)
        token_L[start:stop], token_L[start], position_L[start:stop] = (
            leaf.token_T,
            prompt[-1],
            leaf.depth_T + len(trail),
        )
        seen_QL[start - shared : stop - shared, start:stop] = leaf.seen_TT
        seen_QL[start - shared : stop - shared, trail[shared:]] = True
        at_QN.append(leaf.at_N + (start - shared))
        start = stop
    return Row(trunk[:shared], token_L[shared:], position_L[shared:], seen_QL, at_QN, length - len(trunk))


def _trunk(prompts: Sequence[Ints]) -> tuple[Ints, Ints, list[Ints]]:
    """Merge prompts from their beginnings; return tokens, their positions, and where each prompt's tokens stand."""
    order = sorted(range(len(prompts)), key=lambda i: prompts[i].tolist())
    parts, positions, trails = list[Ints](), list[Ints](), {}
    last, trail, start = np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    for i in order:
        prompt = prompts[i]
        shared = _shared(last, prompt)
        new = np.arange(start, start + len(prompt) - shared)
        trail = np.concatenate([trail[:shared], new])
        parts.append(prompt[shared:])
        positions.append(np.arange(shared, len(prompt)))
        trails[i], last, start = trail, prompt, start + len(new)
    return np.concatenate(parts), np.concatenate(positions), [trails[i] for i in range(len(prompts))]


def _shared(a: Ints, b: Ints) -> int:
    """Return how many tokens two prompts have in common at their beginnings."""
    size = min(len(a), len(b))
    differ = np.flatnonzero(a[:size] != b[:size])
    return int(differ[0]) if len(differ) else size


@lru_cache(maxsize=256)
def _inner(tree: tuple[tuple[int, ...], ...]) -> Leaves:
    """Return the tokens that lead to nodes, given by their tokens."""
    places: dict[tuple[int, ...], int] = {(): 0}
    for tokens in tree:
        for length in range(1, len(tokens) + 1):
            places.setdefault(tokens[:length], len(places))
    seen_TT = np.zeros((len(places), len(places)), np.bool_)
    for tokens, place in places.items():
        seen_TT[place, [places[tokens[:length]] for length in range(len(tokens) + 1)]] = True
    token_T = np.array([tokens[-1] if tokens else 0 for tokens in places])
    depth_T = np.array([len(tokens) for tokens in places])
    return Leaves(token_T, depth_T, seen_TT, np.array([places[tokens] for tokens in tree]))


def tree_leaves(tree: ScoreTree) -> Leaves:
    """Return what a score tree hangs behind a prompt: the tokens that lead to the places where answers part."""
    return _inner(tuple(node.tokens for node in tree.nodes))


def node_logprobs(model: Any, queries: Sequence[Query], pad_id: int) -> list[Logprobs]:
    """Return logprob_E of each query's tree: natural logs at temperature 1, over the whole vocabulary.

    Queries that stand side by side and begin alike are read together.
    """
    import torch

    families = list(_families(queries))
    rows = [pack([q.prompt for q in family], [tree_leaves(q.tree) for q in family]) for family in families]
    check_window(model, max((int(row.position_Q.max()) for row in rows), default=0))
    cells = _GPU_CELLS if model.device.type == "cuda" else _CPU_CELLS
    found: dict[int, list[Logprobs]] = {}
    with torch.inference_mode():
        for batch in _batches([row.seen_QL.shape[1] for row in rows], cells):
            read = read_rows(model, [rows[i] for i in batch], pad_id)
            for i, logits_WV in zip(batch, read.logits_BWV, strict=True):
                found[i] = _read(logits_WV, rows[i], families[i])
    return [logprob_E for i in range(len(families)) for logprob_E in found[i]]


_FAMILY = 16  # queries; more would make a row of many samples' reasoning, most of it hidden from most of it


def _families(queries: Sequence[Query]) -> Iterator[list[Query]]:
    """Put neighbours together that share at least half of the first one's prompt."""
    family: list[Query] = []
    for query in queries:
        if family:
            first = family[0].prompt
            half = (len(first) + 1) // 2
            if len(family) == _FAMILY or list(query.prompt[:half]) != list(first[:half]):
                yield family
                family = []
        family.append(query)
    if family:
        yield family


# Row length squared, summed over the rows of a pass, as attention and mask grow. A core is quickest with some rows
# at a time; a GPU wants some tens of thousands of tokens.
_CPU_CELLS, _GPU_CELLS = 2**22, 2**26


def _batches(lengths: Sequence[int], cells: int) -> Iterator[list[int]]:
    """Put rows of similar length together, as many as a pass has cells for, one at least."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[i] ** 2 > cells:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Read:
    """Rows that a model has read: the logits of their last W tokens, and the cache of C columns that comes of it.

    `seen_BQC` says which columns each of a row's last Q tokens sees.
    """

    logits_BWV: torch.Tensor
    cache: Any
    seen_BQC: Bools


def read_rows(model: Any, rows: Sequence[Row], pad_id: int) -> Read:
    """Read rows: what their prompts share by a causal pass, then the rest, padded before."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    width = max(len(row.shared_S) for row in rows)
    if width:  # padded behind: what comes later changes nothing in a causal pass, which so needs no mask
        shared_BS = np.stack(
            [np.pad(row.shared_S, (0, width - len(row.shared_S)), constant_values=pad_id) for row in rows]
        )
        with only_keys(model, cache):
            model(input_ids=torch.from_numpy(shared_BS).to(model.device), past_key_values=cache, logits_to_keep=1)
    wide = max(len(row.token_Q) for row in rows)
    token_BQ, position_BQ = np.full((len(rows), wide), pad_id), np.zeros((len(rows), wide), np.int64)
    seen_BQL = np.zeros((len(rows), wide, width + wide), np.bool_)
    for i, row in enumerate(rows):
        first, shared = wide - len(row.token_Q), len(row.shared_S)
        token_BQ[i, first:], position_BQ[i, first:] = row.token_Q, row.position_Q
        seen_BQL[i, first:, :shared] = row.seen_QL[:, :shared]
        seen_BQL[i, first:, width + first :] = row.seen_QL[:, shared:]
        seen_BQL[i, range(first), range(width, width + first)] = True  # what sees nothing has no attention to give
    ids, positions = torch.from_numpy(token_BQ).to(model.device), torch.from_numpy(position_BQ).to(model.device)
    mask = additive(torch.from_numpy(seen_BQL).to(model.device), model.dtype)[:, None]
    first = wide - max(row.n_leaves for row in rows)  # no token before it sees one from it on
    if first:
        with only_keys(model, cache):
            model(
                input_ids=ids[:, :first],
                attention_mask=mask[:, :, :first, : width + first],
                position_ids=positions[:, :first],
                past_key_values=cache,
                logits_to_keep=1,
            )
    output = model(
        input_ids=ids[:, first:],
        attention_mask=mask[:, :, first:],
        position_ids=positions[:, first:],
        past_key_values=cache,
    )
    return Read(output.logits, cache, seen_BQL)


def check_window(model: Any, longest: int) -> None:
    """Refuse a model whose layers do not all see `longest` tokens: what a row here sees is the same for all."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    window = getattr(config, "sliding_window", None)
    slides = window is not None and longest >= window and (not kinds or "sliding_attention" in kinds)
    if slides or kinds - {"full_attention", "sliding_attention"}:
        what = f"layers that see {window} tokens" if slides else f"{', '.join(sorted(kinds))} layers"
        raise ConfigError(f"{config.model_type}: a model with {what} needs engine vllm for prompts of {longest} tokens")


def additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask to add to attention's logits, which every attention takes."""
    import torch

    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


def _read(logits_WV: torch.Tensor, row: Row, family: Sequence[Query]) -> list[Logprobs]:
    """Return each query's logprob_E from the logits of a row's last tokens."""
    import torch

    first = len(row.token_Q) - len(logits_WV)
    found: list[Logprobs] = []
    for at_N, query in zip(row.at_QN, family, strict=True):
        logits_NV = logits_WV[torch.from_numpy(at_N - first).to(logits_WV.device)].float()
        logprob_NV = torch.log_softmax(logits_NV, -1).cpu().numpy()
        found.append(
            np.concatenate([logprob_NV[n, node.children] for n, node in enumerate(query.tree.nodes)], dtype=np.float64)
        )
    return found
