"""The toy task's model: a tiny Qwen2 made on the spot, which knows the format of an answer and no preference."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from btrm.config import ConfigError, extent, setting
from btrm.data.toy import toy_pair
from btrm.leases import check_held
from btrm.progress import progress
from btrm.prompts import get_prompt
from btrm.publishing import replace
from btrm.runs import StageConfig, StageResult, StageRun

if TYPE_CHECKING:
    import torch

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# ChatML as Qwen2 writes it, without a default system message: what is trained on is what is judged with.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class ToyModelConfig(StageConfig):
    """How the tiny model is made."""

    seed: int = setting(0, "seed of the weights, the texts and their random scores")
    steps: int = extent(300, "pretraining steps", ge=0)
    batch_size: int = setting(32, "texts a step", ge=1)
    learning_rate: float = setting(1.5e-3, "peak learning rate of pretraining", gt=0)
    hidden_size: int = setting(128, "width", ge=32)
    layers: int = setting(2, "transformer layers", ge=1)
    heads: int = setting(4, "attention heads; the vLLM CPU engine needs a head of 32 or 64", ge=1)
    vocab_size: int = setting(500, "size of the byte-level vocabulary", ge=300)
    prompt: str = setting("toy_score100", "prompt whose texts are learnt")


def run_toy_model(config: ToyModelConfig, run: StageRun) -> StageResult:
    """Train the tokenizer, pretrain the model, publish `model/`; returns the last loss (nats a token)."""
    if config.hidden_size // config.heads not in (32, 64):
        raise ConfigError(f"heads: hidden_size / heads must be 32 or 64, got {config.hidden_size}/{config.heads}")
    folder = run.scratch("model")
    loss = make_toy_model(config, folder)
    check_held()
    shutil.rmtree(run.dir / "model", ignore_errors=True)  # of an attempt with fewer steps
    replace(folder, run.dir / "model")
    return StageResult({"model": None}, {"loss": loss})


def make_toy_model(config: ToyModelConfig, folder: Path) -> float:
    """Write the model and its tokenizer to `folder`; return the mean loss of the last 20 steps."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True)
    texts = toy_texts(config, max(64, min(config.steps, 400) * config.batch_size))
    tokenizer = make_tokenizer(texts[:4000], config.vocab_size)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)  # so small a model is slower on more
    torch.manual_seed(config.seed)
    try:
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=-(-len(tokenizer) // 8) * 8,
                hidden_size=config.hidden_size,
                intermediate_size=2 * config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.heads,
                max_position_embeddings=1024,
                tie_word_embeddings=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=None,
            )
        )
        loss = _pretrain(model, tokenizer, texts, config)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return loss


def toy_texts(config: ToyModelConfig, count: int) -> list[str]:
    """Return chat texts of the toy task with uniformly random scores: the format, and no preference."""
    prompt, rng = get_prompt(config.prompt), random.Random(f"toy-model/{config.seed}")
    texts: list[str] = []
    for index in range(count):
        pair = toy_pair(config.seed, "pretrain", index % 4000)
        messages = prompt.messages(pair.context, pair.responses[rng.randrange(2)])
        head = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        texts.append(f"{head}<|im_start|>assistant\n{prompt.target(rng.randrange(101))}<|im_end|>\n")
    return texts


def make_tokenizer(texts: list[str], vocab_size: int) -> Any:
    """Return a byte-level BPE tokenizer with Qwen2's split; `<s>` is plain text in it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator((t for text in texts for t in text.split("<|im_end|>")), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=1024
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _pretrain(model: Any, tokenizer: Any, texts: list[str], config: ToyModelConfig) -> float:
    """Plain next-token training, AdamW with warm-up and a linear decay."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 20, max(0.05, 1 - step / max(1, config.steps)))
    )
    losses: list[float] = []
    model.train()
    for step in progress(range(config.steps), config.steps, "toy model", "step"):
        start = step * config.batch_size % len(texts)
        encoded = tokenizer(texts[start : start + config.batch_size], return_tensors="pt", padding=True)
        batch = cast("dict[str, torch.Tensor]", encoded)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return sum(losses[-20:]) / max(1, len(losses[-20:]))
