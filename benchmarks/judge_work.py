"""What bench_judge measures on: a tiny random Qwen2, adapters on it, and pairs that share 80 % of their prompts."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

from btrm.judges.base import JudgeRequest, make_request
from btrm.prompts import get_prompt
from btrm.records import PreferencePair

MAX_LENGTH = 1024
PROMPT = get_prompt("toy_score100")
_TEMPLATE_TOKENS = 27
_CHAT = (
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
        tokenizer_object=core, eos_token=special[2], pad_token=special[0], chat_template=_CHAT
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


def make_adapter(model: Path, folder: Path, seed: int, rank: int = 8) -> None:
    """Write a LoRA whose both halves are random, so that it changes answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    base: Any = AutoModelForCausalLM.from_pretrained(model)
    adapted = get_peft_model(base, LoraConfig(r=rank, lora_alpha=rank, target_modules=["q_proj", "v_proj", "up_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(str(folder))


def make_requests(n_pairs: int, n_samples: int, seeds: tuple[int, ...] = (0,)) -> list[JudgeRequest]:
    """Return both sides of pairs whose prompts hold 300-800 letters (tokens), the first 80 % of them shared.

    In the grid's order: a pair's sides together, and of each side all seeds.
    """
    rng = random.Random(0)
    requests: list[JudgeRequest] = []
    for index in range(n_pairs):
        total = rng.randint(300, 800) - _TEMPLATE_TOKENS
        sizes = (4 * total // 5, total // 5, total // 5)
        context, first, second = ("".join(rng.choices(string.ascii_lowercase + " ", k=size)) for size in sizes)
        pair = PreferencePair.make(context, (first, second), 0, source="bench", split="test", label=str(index))
        requests += [make_request(pair, side, PROMPT, n_samples, seed) for side in (0, 1) for seed in seeds]
    return requests
