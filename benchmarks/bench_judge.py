"""The vllm judge against a bare vLLM script and against naive batched generate; exits 1 where a ratio is missed.

    python benchmarks/bench_judge.py [--pairs 200]

Process-CPU seconds, so that other work on the machine changes little; the engines run twice and the faster run
counts. 200 pairs, 4 answers of 64 tokens a side, prompts of 300-800 tokens of which a pair shares 80 %.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import string
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from btrm.judges.base import JudgeRequest, Sampling, make_request
from btrm.judges.engine import EngineSpec
from btrm.judges.transformers import open_transformers
from btrm.judges.vllm import engine_arguments, open_vllm, vllm_process
from btrm.prompts import get_prompt
from btrm.records import PreferencePair

N_SAMPLES, NEW_TOKENS, MAX_LENGTH = 4, 64, 1024
TEMPLATE_TOKENS = 27
SAMPLING = Sampling(temperature=0.7, top_p=0.9, top_k=50, max_new_tokens=NEW_TOKENS)
WANTED = {"of bare vLLM": 0.9, "x naive generate": 6.0}
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_model(folder: Path, hidden: int = 128, layers: int = 2) -> None:
    """Write a random Qwen2 (hidden 128, 2 layers, head_dim 32) with one token a byte, which never ends by itself."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=special[2], pad_token=special[0], chat_template=CHAT
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=False,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    model.lm_head.weight.data[256:] = 0  # a logit of 0 is not among the 50 best: every answer has its 64 tokens
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_requests(n_pairs: int) -> list[JudgeRequest]:
    """Return both sides of pairs whose prompts hold 300-800 letters (tokens), the first 80 % of them shared."""
    rng = random.Random(0)
    requests: list[JudgeRequest] = []
    for index in range(n_pairs):
        total = rng.randint(300, 800) - TEMPLATE_TOKENS
        sizes = (4 * total // 5, total // 5, total // 5)
        context, first, second = ("".join(rng.choices(string.ascii_lowercase + " ", k=size)) for size in sizes)
        pair = PreferencePair.make(context, (first, second), 0, source="bench", split="test", label=str(index))
        requests += [make_request(pair, side, get_prompt("toy_score100"), N_SAMPLES, 0) for side in (0, 1)]
    return requests


def cpu_seconds(work: Callable[[], Any], warm: Callable[[], Any], runs: int = 2) -> float:
    """Return the fastest of some runs, after a small one to warm up."""
    warm()
    times: list[float] = []
    for _ in range(runs):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
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
            return cpu_seconds(lambda: run(requests), clear)
        finally:
            llm.llm_engine.engine_core.shutdown()


def our_judge(opener: Any, model: Path, requests: Sequence[JudgeRequest]) -> float:
    """The judge as the grid opens it."""
    with opener(make_spec(model)) as engine:
        engine.select(None)
        answers = engine.ask(requests[:4])
        assert all(c.tokens == NEW_TOKENS for answer in answers for c in answer.completions)
        return cpu_seconds(lambda: engine.ask(requests), lambda: engine.ask(requests[-4:]))


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

    return cpu_seconds(lambda: run(requests), lambda: run(requests[-4:]), runs=1)


def make_spec(model: Path) -> EngineSpec:
    """The engine's settings, the same for all."""
    return EngineSpec(str(model), 0, SAMPLING, "float32", MAX_LENGTH, 256, 512, 0.9, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    requests = make_requests(parser.parse_args().pairs)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        make_model(model)
        seconds = {
            "naive generate": naive_generate(model, requests),
            "transformers judge": our_judge(open_transformers, model, requests),
            "bare vLLM": bare_vllm(model, requests),
            "vllm judge": our_judge(open_vllm, model, requests),
        }
    ratios = {
        "of bare vLLM": seconds["bare vLLM"] / seconds["vllm judge"],
        "x naive generate": seconds["naive generate"] / seconds["vllm judge"],
    }
    transformers_ratio = seconds["naive generate"] / seconds["transformers judge"]
    print(json.dumps({"cpu_seconds": seconds, **ratios, "transformers judge, x naive generate": transformers_ratio}))
    missed = [
        f"{name}: {ratios[name]:.2f}, wanted {wanted}" for name, wanted in WANTED.items() if ratios[name] < wanted
    ]
    print("\n".join(missed) or "reached", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
