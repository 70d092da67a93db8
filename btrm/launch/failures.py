"""Why an attempt failed, and what will be or can be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Action = Literal["requeue", "retry", "halve", "stop"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A class of failures. `action`: put back at once; again after a pause; again with half the batch; not again."""

    name: str
    action: Action
    advice: str
    exclude_node: bool = False
    own_fault: bool = True  # whether it says something about the job itself, so that two without progress are enough
