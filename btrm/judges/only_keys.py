"""Passes that only fill a key-value cache: their last layer stops at its keys and values.

What the last layer makes of a token goes nowhere but into that token's logits. Where these are not wanted, its
attention, its MLP and all that follows are work for nothing: half of everything in a model of two layers.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


class _FilledError(Exception):
    """The cache holds what the pass was for."""


@contextmanager
def only_keys(model: Any, cache: Any) -> Generator[None]:
    """End the pass within as soon as the last layer's keys and values are in the cache; it has no output.

    A last layer that keeps none of its own (it reads another's) does not end it: such a pass runs to its end.
    """
    last, update = model.config.get_text_config().num_hidden_layers - 1, cache.update

    def fill(key: Any, value: Any, layer: int, *others: Any, **named: Any) -> Any:
        found = update(key, value, layer, *others, **named)
        if layer == last:
            raise _FilledError
        return found

    cache.update = fill
    try:
        yield
    except _FilledError:
        pass
    finally:
        del cache.update  # the method of its class again
