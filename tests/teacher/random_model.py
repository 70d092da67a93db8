"""A tiny random model with room for a teacher's prompt."""

from __future__ import annotations

import json
from pathlib import Path

from btrm.train.toy_model import ToyModelConfig, make_toy_model

LENGTH = 8192


def make_random_model(folder: Path) -> Path:
    """Write the model; of its few tokens about one in three hundred ends a string, so that its answers end."""
    make_toy_model(ToyModelConfig(steps=0, hidden_size=64, heads=2, layers=1, vocab_size=300), folder)
    for file, field in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, field: LENGTH}))
    return folder
