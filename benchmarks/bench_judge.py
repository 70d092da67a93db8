"""The judges against a bare vLLM script, naive generate and one process a cell; exits 1 where a ratio is missed.

    python benchmarks/bench_judge.py [--pairs 200] [--cell-pairs 40] [--model FOLDER]

200 pairs, 4 answers of 64 tokens a side, prompts of 300-800 tokens of which a pair shares 80 %. Process-CPU seconds on
a CPU, so that other work on the machine changes little, and wall seconds on a GPU; of two runs the faster counts. The
expected score is compared with the same naive generate, which it stands in for; the better engine counts. It skips most
of the last layer, a third of the work here where a model has two and little in a deep one. A checkpoint x seed grid (4
LoRA checkpoints, 3 seeds) in one process is compared with twelve processes: three of those are run, one a seed, and
counted four times. With a GPU and a real --model, tokens a second and MFU are told as well.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

from gpu_rate import describe, read_model
from judge_work import MAX_LENGTH, PROMPT, make_adapter, make_model, make_requests

from btrm.judges.base import JudgeRequest, Sampling
from btrm.judges.engine import EngineSpec
from btrm.judges.expected import expected_judge
from btrm.judges.transformers import open_transformers
from btrm.judges.vllm import engine_arguments, open_vllm, vllm_process

T = TypeVar("T")
N_SAMPLES, NEW_TOKENS = 4, 64
SEEDS, CHECKPOINTS = (0, 1, 2), 4
SAMPLING = Sampling(temperature=0.7, top_p=0.9, top_k=50, max_new_tokens=NEW_TOKENS)
WANTED = {
    "of bare vLLM": 0.9,
    "x naive generate": 7.0,
    "expected score, x naive generate": 30.0,
    "one load, x twelve processes": 5.0,
}


def clock() -> float:
    """Seconds of this process on a CPU, of the wall where a GPU does the work."""
    import torch

    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def seconds_of(work: Callable[[], Any], warm: Callable[[], Any], runs: int = 2) -> float:
    """Return the fastest of some runs, after a small one to warm up."""
    warm()
    times: list[float] = []
    for _ in range(runs):
        started = clock()
        work()
        times.append(clock() - started)
    return min(times)


def bare_vllm(model: Path, requests: Sequence[JudgeRequest]) -> float:
    """A script as vLLM's own examples write it: texts in, texts out, with the same engine settings."""
    with vllm_process():
        from transformers import AutoTokenizer
        from vllm import LLM, SamplingParams

        llm: Any = LLM(**engine_arguments(make_spec(model), MAX_LENGTH))
        tokenizer: Any = AutoTokenizer.from_pretrained(model)

        def run(some: Sequence[JudgeRequest]) -> list[list[str]]:
            prompts = [
                tokenizer.apply_chat_template(r.messages, tokenize=False, add_generation_prompt=True) for r in some
            ]
            parameters = [
                SamplingParams(n=N_SAMPLES, temperature=0.7, top_p=0.9, top_k=50, max_tokens=NEW_TOKENS, seed=i * 8)
                for i in range(len(some))
            ]
            outputs = llm.generate(prompts, parameters, use_tqdm=False)
            return [[sample.text for sample in output.outputs] for output in outputs]

        def clear() -> None:
            llm.reset_prefix_cache()
            run(requests[-4:])

        try:
            return seconds_of(lambda: run(requests), clear)
        finally:
            llm.llm_engine.engine_core.shutdown()


def our_judges(opener: Any, model: Path, requests: Sequence[JudgeRequest]) -> tuple[float, float]:
    """Return the seconds of sampled answers and of expected scores, by one engine as the grid opens it."""
    with opener(make_spec(model)) as engine:
        engine.select(None)
        answers = engine.ask(requests[:4])
        assert all(c.tokens == NEW_TOKENS for answer in answers for c in answer.completions)
        sampled = seconds_of(lambda: engine.ask(requests), lambda: engine.ask(requests[-4:]))
        judge = expected_judge(engine, PROMPT, NEW_TOKENS)
        forget(engine)  # the prompts are in the cache now, which would be no fair start
        expected = seconds_of(lambda: judge.ask(requests), lambda: judge.ask(requests[-4:]), runs=1)
        return sampled, expected


def forget(engine: Any) -> None:
    """Empty an engine's prefix cache, where it has one."""
    if hasattr(engine, "_llm"):
        engine._llm.reset_prefix_cache()


def naive_generate(model: Path, requests: Sequence[JudgeRequest], batch: int = 16) -> float:
    """What one would first write: padding on the left, batches in file order, num_return_sequences."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left")
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def run(some: Sequence[JudgeRequest]) -> list[str]:
        texts: list[str] = []
        for start in range(0, len(some), batch):
            prompts = [
                tokenizer.apply_chat_template(r.messages, tokenize=False, add_generation_prompt=True)
                for r in some[start : start + batch]
            ]
            inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
            inputs.pop("token_type_ids", None)
            with torch.inference_mode():
                out = network.generate(
                    **inputs,
                    do_sample=True,
                    temperature=0.7,
                    top_p=0.9,
                    top_k=50,
                    max_new_tokens=NEW_TOKENS,
                    num_return_sequences=N_SAMPLES,
                )
            texts += tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :])
        return texts

    return seconds_of(lambda: run(requests), lambda: run(requests[-4:]), runs=1)


def judge_cells(model: Path, adapters: Sequence[Path], seeds: tuple[int, ...], pairs: int) -> None:
    """What one process of a grid does: load the model, and judge with each adapter at all seeds."""
    with open_vllm(make_spec(model, adapter_rank=8)) as engine:
        for adapter in adapters:
            engine.select(adapter)
            engine.ask(make_requests(pairs, 1, seeds))


def grid_seconds(model: Path, folder: Path, pairs: int) -> dict[str, float]:
    """Return the CPU seconds of the grid in one process, and of twelve processes with a cell each."""
    adapters = [folder / f"checkpoint-{number}" for number in range(CHECKPOINTS)]
    for number, adapter in enumerate(adapters):
        make_adapter(model, adapter, number)
    whole = process_seconds(model, adapters, SEEDS, pairs)
    single = sum(process_seconds(model, [adapters[seed]], (seed,), pairs) for seed in SEEDS)
    return {"grid in one load": whole, "grid in twelve processes": single * CHECKPOINTS}


def process_seconds(model: Path, adapters: Sequence[Path], seeds: tuple[int, ...], pairs: int) -> float:
    """Run a process of its own; return its CPU seconds from its first line on, imports and engine included."""
    task = {"model": str(model), "adapters": [str(a) for a in adapters], "seeds": seeds, "pairs": pairs}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, __file__, "--cells", json.dumps(task)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def make_spec(model: Path, adapter_rank: int = 0) -> EngineSpec:
    """The engine's settings, the same for all."""
    return EngineSpec(str(model), adapter_rank, SAMPLING, "float32", MAX_LENGTH, 256, 512, 0.9, 1)


def gpu_report(model: Path, requests: Sequence[JudgeRequest], seconds: float) -> dict[str, Any]:
    """Return tokens a second and MFU of the vllm judge; nothing without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    from btrm.judges.chat import Chat

    lengths = [len(prompt) for prompt in Chat.open(str(model), MAX_LENGTH).encode(requests)]
    sides = list(zip(lengths[::2], lengths[1::2], strict=True))
    shared = [(4 * first // 5, second) for first, second in sides]  # the second side finds 80 % in the cache
    spans = [(0, first) for first, _ in sides] + shared
    spans += [(length, length + NEW_TOKENS) for length in lengths for _ in range(N_SAMPLES)]
    return {"vllm judge on GPU": describe(read_model(model), spans, seconds)}


def tell(name: str, seconds: T) -> T:
    """Say what was measured as soon as it is: the whole takes minutes."""
    print(name, seconds, file=sys.stderr, flush=True)
    return seconds


def measure(model: Path, folder: Path, pairs: int, cell_pairs: int) -> dict[str, Any]:
    """Run everything; return seconds and ratios."""
    requests = make_requests(pairs, N_SAMPLES)
    naive = tell("naive", naive_generate(model, requests))
    plain, plain_expected = tell("transformers", our_judges(open_transformers, model, requests))
    bare = tell("bare vLLM", bare_vllm(model, requests))
    judge, judge_expected = tell("vllm", our_judges(open_vllm, model, requests))
    grid = tell("grid", grid_seconds(model, folder, cell_pairs))
    return {
        "seconds": {
            "naive generate": naive,
            "transformers judge": plain,
            "transformers expected": plain_expected,
            "bare vLLM": bare,
            "vllm judge": judge,
            "vllm expected": judge_expected,
            **grid,
        },
        "of bare vLLM": bare / judge,
        "x naive generate": naive / judge,
        "transformers judge, x naive generate": naive / plain,
        "expected score, x naive generate": naive / min(plain_expected, judge_expected),
        "vllm expected, x naive generate": naive / judge_expected,
        "one load, x twelve processes": grid["grid in twelve processes"] / grid["grid in one load"],
        **gpu_report(model, requests, judge),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--cell-pairs", type=int, default=40)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--cells", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cells:
        task = given.cells
        judge_cells(Path(task["model"]), [Path(a) for a in task["adapters"]], tuple(task["seeds"]), task["pairs"])
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or Path(folder) / "model"
        if given.model is None:
            make_model(model)
        found = measure(model, Path(folder), given.pairs, given.cell_pairs)
    print(json.dumps(found))
    missed = [f"{name}: {found[name]:.2f}, wanted {wanted}" for name, wanted in WANTED.items() if found[name] < wanted]
    print("\n".join(missed) or "reached", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
