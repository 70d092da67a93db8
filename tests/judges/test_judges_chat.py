"""Tags survive tokenizers in which <s> and </s> are special, and </s> ends an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from btrm.judges.chat import Chat
from btrm.scores import PARSERS, parse_score


def llama_like(folder: Path, eos: str) -> Chat:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", "<|eot|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(["good 73"], trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet))
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token=eos, pad_token="<pad>")
    made.chat_template = "{{ messages[0]['content'] }}"
    made.save_pretrained(folder)
    config = {"model_type": "llama", "eos_token_id": made.eos_token_id}
    (folder / "config.json").write_text(json.dumps(config))
    return Chat.open(str(folder), 64)


@pytest.mark.parametrize("eos", ["</s>", "<|eot|>"])
@pytest.mark.parametrize("text", ["<s>73</s>", "good\n<s>73</s>", "<s>73</s> good"])
def test_the_tag_is_read_whatever_is_special(eos: str, text: str, tmp_path: Path) -> None:
    chat = llama_like(tmp_path, eos)
    tokenizer: Any = chat.tokenizer
    tokens = chat.encode_text(text)
    assert tokens.count(tokenizer.bos_token_id) == 1, "the tag is one special token here"
    if not text.endswith(eos):
        tokens = [*tokens, tokenizer.eos_token_id]
    padded = [*tokens, tokenizer.pad_token_id, tokenizer.pad_token_id]
    answer = chat.completion(padded)
    assert parse_score(answer.text, PARSERS["score100_last"]).value == 73 and answer.finish_reason == "stop"
    skipped = tokenizer.decode(padded, skip_special_tokens=True)
    assert parse_score(skipped, PARSERS["score100_last"]).value is None, "what the usual decoding would lose"


def test_an_answer_cut_by_its_length_keeps_its_open_tag(tmp_path: Path) -> None:
    chat = llama_like(tmp_path, "</s>")
    answer = chat.completion(chat.encode_text("good <s>7"))
    assert (answer.text, answer.finish_reason) == ("good <s>7", "length")
