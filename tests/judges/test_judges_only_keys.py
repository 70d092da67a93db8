"""A pass that only fills a cache leaves in it what a whole pass does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from btrm.judges.only_keys import only_keys


@pytest.mark.parametrize("adapted", [False, True])
def test_the_cache_holds_what_a_whole_pass_leaves_and_takes_more(
    tiny_model: Path, adapters: Path, adapted: bool
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, DynamicCache

    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    if adapted:
        model = PeftModel.from_pretrained(model, str(adapters / "checkpoint-5")).eval()
    mlps: list[int] = []
    for module in model.modules():
        if type(module).__name__.endswith("MLP"):
            module.register_forward_hook(lambda *_: mlps.append(1))
    ids, whole, filled = torch.arange(24).reshape(2, 12), DynamicCache(), DynamicCache()
    with torch.inference_mode():
        model(input_ids=ids, past_key_values=whole)
        n_layers = len(mlps)
        with only_keys(model, filled):
            model(input_ids=ids, past_key_values=filled)
            raise AssertionError("the pass did not end early")
        assert len(mlps) == 2 * n_layers - 1
        for left, right in zip(whole.layers, filled.layers, strict=True):
            assert torch.equal(left.keys, right.keys)
            assert torch.equal(left.values, right.values)
        after = [model(input_ids=ids[:, :1], past_key_values=cache).logits for cache in (whole, filled)]
    assert torch.equal(*after)


def test_an_error_within_is_not_swallowed(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, DynamicCache

    model, cache = AutoModelForCausalLM.from_pretrained(tiny_model), DynamicCache()
    with pytest.raises(ZeroDivisionError), only_keys(model, cache):
        raise ZeroDivisionError
    assert "update" not in vars(cache)
