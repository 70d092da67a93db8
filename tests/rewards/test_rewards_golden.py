"""The seven published rewards, number by number, in parity mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from btrm.rewards.cli import batch_rewards
from btrm.rewards.published import PUBLISHED

PART: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden_part.json").read_text())


@pytest.mark.parametrize("row", PART, ids=[f"{i}-{row['reward']}" for i, row in enumerate(PART)])
def test_part_of_the_published_numbers(row: dict[str, Any]):
    np.testing.assert_allclose(batch_rewards(json.dumps(row)), row["rewards"], rtol=0, atol=1e-12)


def test_part_holds_every_reward():
    assert {row["reward"] for row in PART} == set(PUBLISHED)


def test_all_published_numbers(shared_data: Path):
    lines = (shared_data / "golden" / "rewards.jsonl").read_text().splitlines()
    assert len(lines) >= 100
    for line in lines:
        np.testing.assert_allclose(batch_rewards(line), json.loads(line)["rewards"], rtol=0, atol=1e-12)
