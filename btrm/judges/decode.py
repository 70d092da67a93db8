"""Batched sampling on a Hugging Face model: prefixes read once, rows drawn from generators of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from btrm.judges.base import Sampling

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Family:
    """Prompts that begin alike (the two sides of a pair), each with its number of samples and its seed."""

    prompts: tuple[list[int], ...]
    n_samples: tuple[int, ...]
    seeds: tuple[int, ...]

    @property
    def shared(self) -> int:
        """How many tokens all prompts share; each keeps at least one token of its own."""
        columns = zip(*self.prompts, strict=False)
        alike = next((i for i, column in enumerate(columns) if len(set(column)) > 1), None)
        shortest = min(map(len, self.prompts))
        return min(shortest - 1, shortest if alike is None else alike)

    @property
    def distinct(self) -> tuple[list[int], ...]:
        """The prompts without repetitions: another seed's request reads nothing anew."""
        return tuple(prompt for i, prompt in enumerate(self.prompts) if prompt not in self.prompts[:i])

    @property
    def longest(self) -> int:
        """The longest prompt's number of tokens."""
        return max(map(len, self.prompts))


@dataclass(slots=True)
class _State:
    """Rows that still generate: their cache, what they may attend to, their last logits and their own randomness."""

    cache: Any
    mask_RT: torch.Tensor
    logits_RV: torch.Tensor
    uniform_RT: torch.Tensor
    row_R: torch.Tensor

    def keep(self, index: torch.Tensor) -> None:
        """Go on with these rows (a row may come several times: one for each sample)."""
        self.cache.batch_select_indices(index)
        self.mask_RT, self.logits_RV = self.mask_RT[index], self.logits_RV[index]


def generate(
    model: Any, families: Sequence[Family], sampling: Sampling, end_ids: Sequence[int], pad_id: int
) -> list[list[list[list[int]]]]:
    """Return token ids by family, prompt and sample; each sequence ends with its end token, if it has one.

    A row's draws come from a generator seeded by its prompt's seed + sample, one number a token, so they do not depend
    on what stands beside it in the batch.
    """
    import torch

    with torch.inference_mode():
        state = _prefill(model, families, pad_id)
        prompt_of_row = _prompt_of_row(families)
        seeds = [s + j for f in families for s, n in zip(f.seeds, f.n_samples, strict=True) for j in range(n)]
        state.keep(torch.tensor(prompt_of_row, device=model.device))
        state.uniform_RT = uniforms(seeds, sampling.max_new_tokens).to(model.device)
        state.row_R = torch.arange(len(seeds), device=model.device)
        rows = _decode(model, state, sampling, end_ids)
    flat = iter(rows)
    return [[[next(flat) for _ in range(n)] for n in family.n_samples] for family in families]


def _prompt_of_row(families: Sequence[Family]) -> list[int]:
    """Return for each sequence which of all families' distinct prompts it follows."""
    rows: list[int] = []
    before = 0
    for family in families:
        distinct = family.distinct
        for prompt, n_samples in zip(family.prompts, family.n_samples, strict=True):
            rows += [before + distinct.index(prompt)] * n_samples
        before += len(distinct)
    return rows


def uniforms(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """Return uniform_RT in [0, 1), a stream for each seed: by numpy, since torch on CPU reads 32 bits of a seed."""
    import torch

    return torch.from_numpy(np.stack([np.random.default_rng(seed).random(steps) for seed in seeds]))


def _prefill(model: Any, families: Sequence[Family], pad_id: int) -> _State:
    """Read each family's shared prefix once, then each distinct prompt's rest; both padded on the left."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    prefixes = [family.prompts[0][: family.shared] for family in families]
    owner = [f for f, family in enumerate(families) for _ in family.distinct]
    mask = torch.zeros(len(owner), 0, dtype=torch.long, device=model.device)
    if max(map(len, prefixes)):
        ids, prefix_mask = _left_padded(prefixes, pad_id, model.device)
        _forward(model, ids, prefix_mask, cache)
        index = torch.tensor(owner, device=model.device)
        cache.batch_select_indices(index)
        mask = prefix_mask[index]
    rests = [prompt[family.shared :] for family in families for prompt in family.distinct]
    ids, rest_mask = _left_padded(rests, pad_id, model.device)
    mask = torch.cat([mask, rest_mask], 1)
    logits = _forward(model, ids, mask, cache)
    nothing = torch.empty(0, device=model.device)
    return _State(cache, mask, logits, nothing, nothing)


def _left_padded(rows: Sequence[list[int]], pad_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def _forward(model: Any, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
    """Return the last position's logits (R, V) in float32; positions count real tokens only."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1].float()


def _decode(model: Any, state: _State, sampling: Sampling, end_ids: Sequence[int]) -> list[list[int]]:
    import torch

    ends = torch.tensor(list(end_ids), device=model.device)
    rows: list[list[int]] = [[] for _ in range(len(state.row_R))]
    done_R = torch.zeros(len(rows), dtype=torch.bool, device=model.device)
    for step in range(sampling.max_new_tokens):
        token_R = draw(state.logits_RV, state.uniform_RT[state.row_R, step], sampling)
        for row, token, done in zip(state.row_R.tolist(), token_R.tolist(), done_R.tolist(), strict=True):
            if not done:
                rows[row].append(token)
        done_R |= torch.isin(token_R, ends)
        left = int((~done_R).sum())
        if left == 0 or step == sampling.max_new_tokens - 1:
            break
        if left <= len(done_R) // 2:  # finished rows are dropped when they are half: each drop copies the cache
            index = (~done_R).nonzero().squeeze(1)
            state.keep(index)
            state.row_R, token_R, done_R = state.row_R[index], token_R[index], done_R[index]
        state.mask_RT = torch.nn.functional.pad(state.mask_RT, (0, 1), value=1)
        state.logits_RV = _forward(model, token_R[:, None], state.mask_RT, state.cache)
    return rows


def draw(logits_RV: torch.Tensor, uniform_R: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return token_R by inverse CDF: temperature, then top-k, then top-p, as the engines' own samplers do."""
    import torch

    if sampling.temperature == 0:
        return logits_RV.argmax(-1)
    width = logits_RV.shape[-1]
    top_RK, token_RK = (logits_RV / sampling.temperature).topk(min(sampling.top_k or width, width))
    probability_RK = torch.softmax(top_RK.double(), -1)
    before_RK = probability_RK.cumsum(-1) - probability_RK
    kept_RK = torch.where(before_RK < sampling.top_p, probability_RK, 0.0)
    cumulative_RK = kept_RK.cumsum(-1)
    target_R1 = uniform_R[:, None] * cumulative_RK[:, -1:]
    choice_R = torch.searchsorted(cumulative_RK, target_R1, right=True)
    last_R1 = (kept_RK > 0).sum(-1, keepdim=True) - 1
    return token_RK.gather(1, torch.minimum(choice_R, last_R1)).squeeze(1)
