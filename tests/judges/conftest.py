from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import judge_stage
import pytest
from judge_stage import RuleEngine

from btrm.data.toy import toy_pairs
from btrm.judges import grid
from btrm.records import write_pairs

CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def make_tokenizer(special: list[str] = SPECIAL, eos: str = "<|im_end|>", pad: str = "<|endoftext|>") -> Any:
    """A byte-level tokenizer without merges: 256 bytes and the special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, pad_token=pad, chat_template=CHAT)


def make_model(folder: Path, seed: int = 0, hidden: int = 64) -> Path:
    """Write a random Qwen2 with head_dim 32; weights are large enough that its samples differ."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer()
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=264,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.set_rng_state(state)
    return folder


def make_adapter(base: Path, folder: Path, seed: int, rank: int = 4) -> Path:
    """Write a LoRA adapter whose both halves are random, so that it changes answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj", "up_proj"])
    adapted = get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.save_pretrained(str(folder))
    torch.set_rng_state(state)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds checkpoint-5, -10 and -100, as a trainer leaves them."""
    folder = tmp_path_factory.mktemp("grpo")
    for step in (5, 10, 100):
        make_adapter(tiny_model, folder / f"checkpoint-{step}", seed=step)
    return folder


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "test.pairs.parquet"
    write_pairs(path, toy_pairs("test", 12))
    return path


@pytest.fixture
def rule_engine() -> Generator[type[RuleEngine]]:
    """A rule in the place of transformers' engine; what was opened and asked is noted on the class."""
    before = dict(grid.ENGINES)
    judge_stage.use_rule_engine()
    yield RuleEngine
    grid.ENGINES.update(before)


@pytest.fixture
def chat_with_special_tags() -> tuple[Any, Any]:
    """A chat over a tokenizer like Llama's: `<s>` begins a text, `</s>` ends it; and a function from text to ids."""
    from btrm.judges.chat import Chat

    tokenizer = make_tokenizer(["<unk>", "<s>", "</s>"], eos="</s>", pad="<unk>")
    hidden = frozenset({tokenizer.convert_tokens_to_ids("<unk>")})
    chat = Chat(tokenizer, frozenset({tokenizer.eos_token_id}), hidden, 100)
    return chat, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
