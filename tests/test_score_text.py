from __future__ import annotations

import pytest

from btrm.score_text import close_tag


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
