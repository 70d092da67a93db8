"""Sets whose rows hold a chosen and a rejected conversation: TRL's own form, UltraFeedback binarized, Skywork's.

TRL's preference form (its documentation, "Dataset formats and types"): `prompt`, `chosen`, `rejected`, the prompt there
or at the start of both, texts or lists of messages. UltraFeedback binarized: `HuggingFaceH4/ultrafeedback_binarized`
(Tunstall et al., arXiv 2310.16944; its splits train_prefs and test_prefs). Skywork:
`Skywork/Skywork-Reward-Preference-80K-v0.2` (Liu et al., arXiv 2410.18451; train).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from btrm.data.fields import column, drop, fields, file_rows, read_each, rows_of
from btrm.data.groups import choice_of
from btrm.data.items import Item, Occurrences, Query, ordered
from btrm.data.reading import SourceRow
from btrm.data.turns import IncomparableError, compare
from btrm.hub import HubItem

ULTRAFEEDBACK = "ultrafeedback_binarized"
ULTRAFEEDBACK_HUB = HubItem("dataset", "HuggingFaceH4/ultrafeedback_binarized", files=("data/*_prefs-*", "README.md"))
_ULTRAFEEDBACK_SPLITS = {"train": "train_prefs", "test": "test_prefs"}
ULTRAFEEDBACK_SPLITS = tuple(_ULTRAFEEDBACK_SPLITS)
SKYWORK = "skywork_reward"
SKYWORK_HUB = HubItem("dataset", "Skywork/Skywork-Reward-Preference-80K-v0.2", files=("data/*", "README.md"))
SKYWORK_SPLITS = ("train",)
TRL = "trl"
_NOT_META = frozenset({"prompt", "chosen", "rejected", "messages"})


def trl(query: Query) -> Iterator[Item]:
    """Yield the pairs of files in TRL's form; other columns that hold plain values become metadata."""
    rows = file_rows(query, TRL)
    return _pairs(rows, TRL, query.split, _plain_columns, _never)


def skywork_reward(query: Query) -> Iterator[Item]:
    """Yield the pairs of Skywork's reward preferences; the set that a row comes from is its subset."""
    rows = rows_of(query, SKYWORK_HUB, None, query.split)
    return _pairs(rows, SKYWORK, query.split, lambda row: {"subset": str(fields(row).get("source") or "")}, _never)


def ultrafeedback_binarized(query: Query) -> Iterator[Item]:
    """Yield the pairs; where both scores are equal the rater named no better one: a tie.

    Option `equal_scores` is tie (default) or keep, which takes the row's own order for a preference.
    """
    equal = choice_of(query, ULTRAFEEDBACK, "equal_scores", "tie", ("tie", "keep"))
    hub_split = _ULTRAFEEDBACK_SPLITS.get(query.split, query.split)
    rows = rows_of(query, ULTRAFEEDBACK_HUB, None, hub_split)
    is_tie = _scores_are_equal if equal == "tie" else _never
    return _pairs(rows, ULTRAFEEDBACK, query.split, _plain_columns, is_tie)


def _pairs(
    rows: Iterable[SourceRow],
    source: str,
    split: str,
    meta: Callable[[SourceRow], Mapping[str, Any]],
    is_tie: Callable[[SourceRow], bool],
) -> Iterator[Item]:
    seen = Occurrences()

    def read(row: SourceRow) -> Iterator[Item]:
        try:
            found = compare(fields(row).get("prompt"), column(row, "chosen"), column(row, "rejected"))
        except IncomparableError as error:
            yield drop(row, error.reason, str(error))
            return
        responses, preferred = ordered(found.chosen, found.rejected)
        label = None if is_tie(row) else preferred
        yield seen.pair(found.context, responses, label, source=source, split=split, meta=meta(row))

    return read_each(rows, read)


def _plain_columns(row: SourceRow) -> dict[str, Any]:
    plain = (str, int, float, bool, type(None))
    return {k: v for k, v in fields(row).items() if k not in _NOT_META and isinstance(v, plain)}


def _scores_are_equal(row: SourceRow) -> bool:
    scores = fields(row).get("score_chosen"), fields(row).get("score_rejected")
    return scores[0] is not None and scores[0] == scores[1]


def _never(_: SourceRow) -> bool:
    return False
