"""Light stages for tests on a real Slurm: pairs -> a teacher's shared judgements -> sft_data. No model is loaded."""

from __future__ import annotations

from btrm.data.pairs import PairsConfig
from btrm.data.sft_data import SftDataConfig
from btrm.launch.plan import Experiment, Step
from btrm.runs import Resources
from btrm.teacher.config import TeacherConfig

_SMALL = Resources(cpus=1, mem_gb=1, time_min=5)


def light(shards: int | None = None) -> Experiment:
    """Return the three steps."""
    pairs = PairsConfig(n_pairs={"train": 120, "validation": 5, "test": 5})
    steps = (
        Step("pairs", pairs, _SMALL),
        Step("teacher", TeacherConfig(part_pairs=10), _SMALL, shards=shards),
        Step("sft_data", SftDataConfig(), _SMALL),
    )
    return Experiment("light", "the stages before training", steps)
