"""Batched sampling on a Hugging Face model: what a family of prompts shares is read and kept once, by all samples.

A family (the two sides of a pair, all their samples and seeds) is one row of the batch. Each sample is a place in it
that sees its own prompt and its own tokens, so that the cache holds a prompt once however many samples are drawn from
it. A row's draws come from generators of their own, seeded by sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from btrm.judges.base import Sampling
from btrm.judges.token_rows import LAST, Read, Row, additive, check_window, pack, read_rows

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Family:
    """Prompts that begin alike (the two sides of a pair), each with its number of samples and its seed."""

    prompts: tuple[list[int], ...]
    n_samples: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(slots=True)
class _Sample:
    """One answer as it grows; `uniform_T` are its draws."""

    position: int
    uniform_T: Any
    tokens: list[int]


@dataclass(slots=True)
class _State:
    """Families that still generate: B rows of Q places. `sample_BQ` is None at places that are over or were never."""

    cache: Any
    mask_BQC: torch.Tensor
    logits_BQV: torch.Tensor
    sample_BQ: list[list[_Sample | None]]

    def shrink(self) -> None:
        """Leave out what is over: places as soon as no row needs so many, rows when they are half (it copies)."""
        import torch

        places = [[q for q, sample in enumerate(row) if sample] for row in self.sample_BQ]
        alive = [b for b, row in enumerate(places) if row]
        if len(alive) <= len(places) // 2:
            index = torch.tensor(alive, device=self.mask_BQC.device)
            self.cache.batch_select_indices(index)
            self.mask_BQC, self.logits_BQV = self.mask_BQC[index], self.logits_BQV[index]
            self.sample_BQ, places = [self.sample_BQ[b] for b in alive], [places[b] for b in alive]
        most = max(map(len, places))
        if most < len(self.sample_BQ[0]):
            kept = [row + [0] * (most - len(row)) for row in places]
            index = torch.tensor(kept, device=self.mask_BQC.device)[:, :, None]
            self.mask_BQC = self.mask_BQC.gather(1, index.expand(-1, -1, self.mask_BQC.shape[2]))
            self.logits_BQV = self.logits_BQV.gather(1, index.expand(-1, -1, self.logits_BQV.shape[2]))
            self.sample_BQ = [
                [row[q] for q in kept_row] + [None] * (most - len(kept_row))
                for row, kept_row in zip(self.sample_BQ, places, strict=True)
            ]


def generate(
    model: Any, families: Sequence[Family], sampling: Sampling, end_ids: Sequence[int], pad_id: int
) -> list[list[list[list[int]]]]:
    """Return token ids by family, prompt and sample; each sequence ends with its end token, if it has one.

    A sample's draws come from a generator seeded by its prompt's seed + sample, one number a token, so they do not
    depend on what stands beside it in the batch.
    """
    import torch

    longest = max(len(prompt) for family in families for prompt in family.prompts) + sampling.max_new_tokens
    check_window(model, longest)
    samples = [_samples(family, sampling.max_new_tokens) for family in families]
    with torch.inference_mode():
        rows = [pack(family.prompts, [LAST] * len(family.prompts)) for family in families]
        _decode(model, _start(model, read_rows(model, rows, pad_id), rows, samples), sampling, set(end_ids), pad_id)
    return [[[sample.tokens for sample in of_prompt] for of_prompt in of_family] for of_family in samples]


def _samples(family: Family, steps: int) -> list[list[_Sample]]:
    """Return the samples of each prompt, with their draws."""
    return [
        [_Sample(len(prompt), uniform_T, []) for uniform_T in uniforms([seed + j for j in range(n)], steps)]
        for prompt, n, seed in zip(family.prompts, family.n_samples, family.seeds, strict=True)
    ]


def uniforms(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """Return uniform_RT in [0, 1), a stream for each seed: by numpy, since torch on CPU reads 32 bits of a seed."""
    import torch

    return torch.from_numpy(np.stack([np.random.default_rng(seed).random(steps) for seed in seeds]))


def _start(model: Any, read: Read, rows: Sequence[Row], samples: Sequence[Sequence[Sequence[_Sample]]]) -> _State:
    """Give each sample a place that sees what its prompt's last token sees, and has its logits."""
    import torch

    most = max(sum(map(len, of_family)) for of_family in samples)
    at_BQ = np.full((len(rows), most), -1)  # the place of a prompt's last token, counted from the end
    sample_BQ: list[list[_Sample | None]] = [[None] * most for _ in rows]
    for b, (row, of_family) in enumerate(zip(rows, samples, strict=True)):
        places = [(int(at_N[0]), s) for at_N, of_prompt in zip(row.at_QN, of_family, strict=True) for s in of_prompt]
        for q, (at, sample) in enumerate(places):
            at_BQ[b, q], sample_BQ[b][q] = at - len(row.token_Q), sample
    wide, width = read.seen_BQC.shape[1], read.logits_BWV.shape[1]
    row_B1 = np.arange(len(rows))[:, None]
    mask_BQC = additive(torch.from_numpy(read.seen_BQC[row_B1, wide + at_BQ]).to(model.device), model.dtype)
    index = torch.from_numpy(width + at_BQ).to(model.device)[:, :, None].expand(-1, -1, read.logits_BWV.shape[2])
    return _State(read.cache, mask_BQC, read.logits_BWV.gather(1, index), sample_BQ)


def _decode(model: Any, state: _State, sampling: Sampling, end_ids: set[int], pad_id: int) -> None:
    """Draw tokens until every sample has ended or is as long as it may be."""
    import torch

    for step in range(sampling.max_new_tokens):
        token_BQ = _draw_all(state, sampling, step, end_ids, pad_id)
        if step == sampling.max_new_tokens - 1 or not any(sample for row in state.sample_BQ for sample in row):
            return
        rows, places = len(token_BQ), len(token_BQ[0])
        own = torch.full((places, places), torch.finfo(model.dtype).min, dtype=model.dtype, device=model.device)
        own.fill_diagonal_(0)
        state.mask_BQC = torch.cat([state.mask_BQC, own.expand(rows, -1, -1)], 2)
        positions = [[sample.position + step if sample else 0 for sample in row] for row in state.sample_BQ]
        output = model(
            input_ids=torch.tensor(token_BQ, device=model.device),
            attention_mask=state.mask_BQC[:, None],
            position_ids=torch.tensor(positions, device=model.device),
            past_key_values=state.cache,
        )
        state.logits_BQV = output.logits
        state.shrink()


def _draw_all(state: _State, sampling: Sampling, step: int, end_ids: set[int], pad_id: int) -> list[list[int]]:
    """Draw a token for each sample that goes on, note it, and end those that drew an end; return what is fed next."""
    import torch

    flat = [sample for row in state.sample_BQ for sample in row]
    uniform_R = torch.tensor([float(s.uniform_T[step]) if s else 0.0 for s in flat], dtype=torch.float64)
    logits_RV = state.logits_BQV.flatten(0, 1).float()
    drawn = draw(logits_RV, uniform_R.to(logits_RV.device), sampling).tolist()
    for sample, token in zip(flat, drawn, strict=True):
        if sample:
            sample.tokens.append(token)
    ended = [sample is None or token in end_ids for sample, token in zip(flat, drawn, strict=True)]
    places = len(state.sample_BQ[0])
    for number, over in enumerate(ended):
        if over:
            state.sample_BQ[number // places][number % places] = None
            drawn[number] = pad_id
    return [drawn[start : start + places] for start in range(0, len(drawn), places)]


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
