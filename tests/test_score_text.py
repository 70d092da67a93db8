"""Tags survive tokenizers in which <s> and </s> are special, and </s> ends an answer."""

from __future__ import annotations

from typing import Any

import pytest

from btrm.score_text import close_tag, completion_text
from btrm.scores import PARSERS, parse_score


def llama_like(eos: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", "<|eot|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(["good 73"], trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token=eos, pad_token="<pad>")


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("eos", ["</s>", "<|eot|>"])
@pytest.mark.parametrize("text", ["<s>73</s>", "good\n<s>73</s>", "<s>73</s> good"])
def test_the_tag_is_read_whatever_is_special(eos: str, text: str) -> None:
    tokenizer = llama_like(eos)
    tokens = ids(tokenizer, text)
    assert tokens.count(tokenizer.bos_token_id) == 1, "the tag is one special token here"
    if not text.endswith(eos):
        tokens = [*tokens, tokenizer.eos_token_id]
    padded = [*tokens, tokenizer.pad_token_id, tokenizer.pad_token_id]
    assert parse_score(completion_text(tokenizer, padded), PARSERS["score100_last"]).value == 73
    skipped = tokenizer.decode(padded, skip_special_tokens=True)
    assert parse_score(skipped, PARSERS["score100_last"]).value is None, "what the usual decoding would lose"


def test_an_answer_cut_by_its_length_keeps_its_open_tag() -> None:
    tokenizer = llama_like("</s>")
    text = completion_text(tokenizer, ids(tokenizer, "good <s>7"))
    assert text == "good <s>7"


@pytest.mark.parametrize(
    ("text", "eos", "finished", "closed"),
    [
        ("<s>7", "</s>", True, "<s>7</s>"),
        ("<s>7", "</s>", False, "<s>7"),
        ("<s>7", "<|im_end|>", True, "<s>7"),
        ("<s>7</s> so", "</s>", True, "<s>7</s> so"),
        ("no tag", "</s>", True, "no tag"),
        ("<s>7", None, True, "<s>7"),
    ],
)
def test_only_a_tag_that_stands_open_is_closed(text: str, eos: str | None, finished: bool, closed: str) -> None:
    assert close_tag(text, eos, finished) == closed
