"""Which calls begin as others do, and whether that is worth keeping in an API's cache."""

from __future__ import annotations

from btrm.teacher.base import Call
from btrm.teacher.config import APIS, TeacherConfig
from btrm.teacher.tokens import typical_tokens

# No API keeps less than this; some models want two or four times as much, and charge for nothing that they do not keep.
_LEAST_TOKENS = 1024


def cacheable(config: TeacherConfig, call: Call) -> bool:
    """Say whether what a call shares with others about its pair is worth keeping.

    With Anthropic, writing costs a quarter more than input, and reading a tenth of it: two calls are enough, where the
    second waits for the first; in a batch nobody waits, and both may write.
    """
    if config.prompt_cache == "off" or config.backend not in APIS or _shared_by(config) < 2 or not call.context:
        return False
    waits = config.mode == "direct"
    return config.prompt_cache == "on" or (waits and typical_tokens(call.system + call.context) >= _LEAST_TOKENS)


def system_cacheable(config: TeacherConfig, call: Call) -> bool:
    """Say whether what a stage's calls are told, all the same, is worth keeping by itself: they are many."""
    if config.prompt_cache == "off" or config.backend not in APIS or not call.system:
        return False
    return config.prompt_cache == "on" or typical_tokens(call.system) >= _LEAST_TOKENS


def kept(config: TeacherConfig, call: Call) -> str:
    """Return the beginning of a call that is worth keeping, empty where none is."""
    if cacheable(config, call):
        return call.system + call.context
    return call.system if system_cacheable(config, call) else ""


def _shared_by(config: TeacherConfig) -> int:
    """Return how many calls are about one pair, and nothing else."""
    return {"pointwise": 2 * config.n_samples, "pairwise": config.n_samples, "batched": 1}[config.call_layout]
