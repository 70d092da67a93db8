"""Which preference set a file holds, by the columns and the values of its first rows.

Each set has a signature: a file may certainly be it, possibly, or not. One certain set, or one possible where none is
certain, is the answer; several are for the user to choose from.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

from btrm.config import ConfigError
from btrm.data.reading import SourceRow, expand_files, read_source_rows
from btrm.data.rewardbench import SIZES as REWARDBENCH_SIZES
from btrm.data.rewardbench2 import SIZES as REWARDBENCH2_SIZES
from btrm.data.rm_bench import STYLES as RM_BENCH_STYLES
from btrm.data.rows import KEYS as POINTWISE

_LOG = logging.getLogger(__name__)
AUTO = "auto"
_SAMPLE = 200  # rows that are looked at, of each file
Row = Mapping[str, Any]
NO, POSSIBLE, CERTAIN = 0, 1, 2
_PAIRS = ("pair_id", "label_id", "context", "response_0", "response_1", "preferred", "source", "split", "meta")
_HH_MARK = "\n\nAssistant:"
_SKYWORK_SOURCES = ("magpie", "offsetbias", "helpsteer2", "wildguard")


def detect(files: tuple[Path, ...]) -> str:
    """Return the name of the one data set that files (or folders of them) hold.

    Raises ConfigError where that is none, several, or pointwise rows, with the columns and what to say instead.
    """
    samples = {path: list(islice(read_source_rows((path,)), _SAMPLE)) for path in expand_files(files)}
    looked_at = [row for found in samples.values() for row in found]
    rows = [row.value for row in looked_at if row.value is not None]
    where = ", ".join(map(str, files))
    if not rows:
        raise ConfigError(f"{where}: {_unreadable(looked_at) or 'holds no rows'}")
    found = candidates(rows)
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{where}: may be {' or '.join(found)}; say which with --dataset NAME")
    raise ConfigError("\n".join(filter(None, (f"{where}: {_unknown(rows[0])}", _unreadable(looked_at)))))


def resolve(dataset: str, files: tuple[Path, ...]) -> str:
    """Return the name of a data set: what the files hold where it is `auto`, told once, else as it is."""
    if dataset != AUTO:
        return dataset
    if not files:
        raise ConfigError("dataset auto: is found from files; give data_files, or name the data set")
    try:
        found = detect(files)
    except ConfigError as error:
        raise ConfigError(f"dataset auto: {error}") from None
    _LOG.info("dataset auto: %s, by the columns of %s", found, ", ".join(path.name for path in files))
    return found


def candidates(rows: list[dict[str, Any]]) -> list[str]:
    """Return the sets that most of these rows can be of, the certain ones alone where there are any."""
    certain, possible = Counter[str](), Counter[str]()
    for row in rows:
        strengths = {name: signature(row) for name, signature in SIGNATURES.items()}
        certain.update(name for name, strength in strengths.items() if strength == CERTAIN)
        possible.update(name for name, strength in strengths.items() if strength != NO)
    for counts in (certain, possible):
        found = [name for name, count in counts.items() if 2 * count > len(rows)]
        if found:
            return found
    return []


def _unreadable(rows: list[SourceRow]) -> str:
    """Say how many of the rows that were looked at cannot be read, and where the first of them stands; "" for none."""
    bad = [row for row in rows if row.value is None]
    if not bad:
        return ""
    count = f"{len(bad)} of {len(rows)} rows looked at" if len(rows) > 1 else "its only row"
    return f"{count} cannot be read; the first stands at {bad[0].where}: {bad[0].problem}"


def _unknown(row: Row) -> str:
    if all(name in row for name in POINTWISE):
        return "holds pointwise rows, one response each; give the pairs.parquet that they were made of"
    named = ", ".join(map(str, row)) or "none"
    return (
        f"no known data set has these columns: {named}. Known: {', '.join(SIGNATURES)}.\n"
        "Say which it is with --dataset NAME, or what the columns mean: --dataset mapped --columns "
        "context=C chosen=A rejected=B"
    )


def _columns(*names: str) -> Callable[[Row], int]:
    """Return a signature: certain where all these columns are there."""
    wanted = frozenset(names)
    return lambda row: CERTAIN if wanted <= row.keys() else NO


def _texts(row: Row, *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)


def _lists_of(kind: type, row: Row, *names: str) -> bool:
    """Say whether all these columns are lists, not empty, of one kind of thing."""
    values = [row.get(name) for name in names]
    return all(isinstance(v, list) and v and all(isinstance(x, kind) for x in cast("list[Any]", v)) for v in values)


def _is_hh(row: Row) -> int:
    texts = _texts(row, "chosen", "rejected") and "prompt" not in row
    return CERTAIN if texts and _HH_MARK in row["chosen"] and _HH_MARK in row["rejected"] else NO


def _is_trl(row: Row) -> int:
    alike = _texts(row, "chosen", "rejected") or _lists_of(dict, row, "chosen", "rejected")
    prompt = row.get("prompt")
    return POSSIBLE if alike and (prompt is None or _texts(row, "prompt") or _lists_of(dict, row, "prompt")) else NO


def _is_ultrafeedback(row: Row) -> int:
    if not {"score_chosen", "score_rejected"} <= row.keys() or not _lists_of(dict, row, "chosen", "rejected"):
        return NO
    return CERTAIN if {"prompt", "prompt_id", "messages"} <= row.keys() else POSSIBLE


def _is_skywork(row: Row) -> int:
    if "prompt" in row or not _texts(row, "source") or not _lists_of(dict, row, "chosen", "rejected"):
        return NO
    return CERTAIN if row["source"].startswith(_SKYWORK_SOURCES) else POSSIBLE


def _is_swift_rm(row: Row) -> int:
    other = row.get("rejected_response") is not None or row.get("rejected_messages") is not None
    return CERTAIN if other and _lists_of(dict, row, "messages") else NO


def _is_rewardbench(row: Row) -> int:
    return CERTAIN if _texts(row, "chosen", "rejected") and row.get("subset") in list(REWARDBENCH_SIZES) else NO


def _is_rewardbench2(row: Row) -> int:
    lists = _lists_of(str, row, "chosen", "rejected")
    return CERTAIN if lists and row.get("subset") in list(REWARDBENCH2_SIZES) else NO


def _is_rm_bench(row: Row) -> int:
    lists = _lists_of(str, row, "chosen", "rejected") and row.get("subset") not in list(REWARDBENCH2_SIZES)
    return CERTAIN if lists and len(row["chosen"]) == len(row["rejected"]) == len(RM_BENCH_STYLES) else NO


def _is_rmb(row: Row) -> int:
    return CERTAIN if "conversation_input" in row and ("bon_uid" in row or "pair_uid" in row) else NO


SIGNATURES: dict[str, Callable[[Row], int]] = {
    "btrm": _columns(*_PAIRS),
    "summarize_from_feedback": _columns("info", "summaries", "choice"),
    "anthropic_hh": _is_hh,
    "rewardbench": _is_rewardbench,
    "rewardbench2": _is_rewardbench2,
    "rm_bench": _is_rm_bench,
    "rmb": _is_rmb,
    "judgebench": _columns("question", "response_A", "response_B", "label"),
    "llmbar": _columns("input", "output_1", "output_2", "label"),
    "autoj": _columns("prompt", "response 1", "response 2", "label"),
    "pandalm": _columns("instruction", "input", "response1", "response2", "annotator1"),
    "helpsteer3": _columns("context", "response1", "response2", "overall_preference"),
    "ultrafeedback_binarized": _is_ultrafeedback,
    "skywork_reward": _is_skywork,
    "swift_rm": _is_swift_rm,
    "trl": _is_trl,
}
