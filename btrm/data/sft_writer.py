"""The rows that a student learns from, and the judgements that become none, as they are written down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, cast

from btrm.data.answers import COLUMNS, Answer, key_of
from btrm.data.merge import Side
from btrm.prompts import PromptSpec
from btrm.records import PreferencePair
from btrm.scores import without_tags


@dataclass(slots=True)
class SftWriter:
    """Writes rows and drops, and counts both. `teachers` are named in both where there are several."""

    prompt: PromptSpec
    rows: IO[str]
    drops: IO[str]
    teachers: Sequence[str]
    counts: Counter[str]

    def keep(self, pair: PreferencePair, side: Side, teacher: int | None) -> None:
        """Write one conversation: the prompt filled in, and the answer with its tag exactly once.

        A merged row says how many answers its score is made of, and names the one that the rationale is of.
        """
        reason = without_tags(cast(str, side.answer["completion"]))
        self.counts["without_reason"] += self.prompt.style != "score_only" and not reason.strip()
        target = self.prompt.target(side.score, reason)
        messages = self.prompt.messages(pair.context, pair.responses[side.answer["side"]])
        row = {"messages": [*messages, {"role": "assistant", "content": target}], **key_of(side.answer)}
        if len(self.teachers) > 1:
            row["judge"] = self.teachers[side.answer["teacher"]]
        if teacher is None:
            row["answers"] = len(side.behind)
        self.counts["joined_by_pair"] += any("judged_as" in answer for answer in side.behind)
        self.rows.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.counts["rows"] += 1
        self.counts["merged"] += len(side.behind)

    def drop(self, answer: Answer, reason: str) -> None:
        """Write down why a judgement became no row."""
        record = {"reason": reason, **{name: answer[name] for name in COLUMNS}}
        if len(self.teachers) > 1:
            record["judge"] = self.teachers[answer["teacher"]]
        if "judged_as" in answer:
            record["judged_as"] = answer["judged_as"]
        self.drops.write(json.dumps(record, ensure_ascii=False) + "\n")
        self.counts["dropped"] += 1
        self.counts[f"dropped_{reason}"] += 1
