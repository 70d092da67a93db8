"""How far the same question gets the same answer on an engine, whatever stands beside it in a batch.

An answer is drawn with a seed of its own, so only rounding is left: a batch of another size takes other kernels, whose
sums differ in the last bit, and now and then a token flips. On a CPU the sums do not depend on the batch as far as the
engines' tests see. On a GPU vLLM has a mode in which they do not either; where it is off, the flips are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from btrm.judges.base import Judge, JudgeAnswer, JudgeRequest
from btrm.prompts import PromptSpec
from btrm.scores import parse_score
from btrm.versions import package_version

Invariance = Literal["cpu", "on", "off"]
BatchInvariant = Literal["auto", "off"]
# NVIDIA compute capability -> first release with the mode on it (vLLM's documentation of 0.12 and 0.32, and what its
# users report for 0.22 on 8.6 and 8.9).
_FIRST_RELEASE = {(9, 0): (0, 11, 1), (8, 0): (0, 22, 0)}
VARIABLE = "VLLM_BATCH_INVARIANT"


def vllm_invariance(wanted: BatchInvariant) -> Invariance:
    """Say whether vLLM's answers will be the same in every batch: `on` is its mode, `off` means nothing promises it."""
    from vllm.platforms import current_platform  # asks the driver and leaves CUDA alone, which workers need

    if current_platform.is_cpu():
        return "cpu"
    capability = current_platform.get_device_capability() if current_platform.is_cuda() else None
    if wanted == "off" or capability is None:
        return "off"
    return supported((capability.major, capability.minor), package_version("vllm"))


def supported(capability: tuple[int, int], version: str) -> Invariance:
    """Return `on` where a release of vLLM has the mode on GPUs of a compute capability."""
    release = tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())
    known = [first for least, first in _FIRST_RELEASE.items() if capability >= least]
    return "on" if known and release >= min(known) else "off"


@dataclass(frozen=True, slots=True)
class FlipRate:
    """How many answers changed when they were asked for again beside others."""

    pairs: int
    answers: int
    changed_completions: float
    changed_scores: float


def measure_flips(judge: Judge, requests: Sequence[JudgeRequest], prompt: PromptSpec) -> dict[str, Any]:
    """Ask at once in order, then backwards in small batches; return the shares that changed, a FlipRate as a dict."""
    first = judge.ask(requests)
    backwards = list(requests)[::-1]
    size = max(round(len(backwards) ** 0.5), 1)
    again = [a for start in range(0, len(backwards), size) for a in judge.ask(backwards[start : start + size])][::-1]
    both = zip(first, again, strict=True)
    pairs = [pair for one, two in both for pair in zip(_read(one, prompt), _read(two, prompt), strict=True)]
    texts = sum(one[0] != two[0] for one, two in pairs) / len(pairs)
    scores = sum(one[1] != two[1] for one, two in pairs) / len(pairs)
    return asdict(FlipRate(len({r.pair.label_id for r in requests}), len(pairs), texts, scores))


def _read(answer: JudgeAnswer, prompt: PromptSpec) -> list[tuple[str, float | None]]:
    """Return each completion's text and score; an expected score counts to six decimals."""
    read: list[tuple[str, float | None]] = []
    for completion in answer.completions:
        score = parse_score(completion.text, prompt.parser, completion.finish_reason).value
        if score is not None and completion.expectation is not None:
            score = round(completion.expectation.value, 6)
        read.append((completion.text, score))
    return read
