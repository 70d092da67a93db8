"""OpenAI's summarize_from_feedback: two summaries of a post and which one a labeler chose.

Hub: `openai/summarize_from_feedback` (comparisons). Files: the original comparison .json/.jsonl files. Rows say of
themselves whether they are train, valid1 (OpenAI selected on it: our validation) or valid2 (evaluated on it: our test).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from btrm.config import ConfigError, nearest
from btrm.data.items import Dropped, Item, Occurrences, Query, malformed
from btrm.data.reading import SourceRow, expand_files, hub_rows, read_source_rows
from btrm.hub import HubItem

SOURCE = "summarize_from_feedback"
SPLITS = ("train", "validation", "test")
# What a row's own `split` may say for each of our splits, and the hub's split that holds it.
_ROW_SPLITS = {"train": "train", "validation": "valid1", "test": "valid2"}
_HUB_SPLITS = {"train": "train", "validation": "validation", "test": "validation"}
# The hub's rows are built by a script, which `datasets` no longer runs; this branch holds them as Parquet.
HUB = HubItem("dataset", "openai/summarize_from_feedback", "refs/convert/parquet", ("comparisons/*",))
DOMAINS = ("tldr", "cnndm", "all")
UNKNOWN_SPLIT = "unknown_split"


def summarize_from_feedback(query: Query) -> Iterator[Item]:
    """Yield the pairs and drops of a split; option `domain` is tldr (default), cnndm or all."""
    domain = query.options.get("domain", "tldr")
    if domain not in DOMAINS:
        raise ConfigError(f"{SOURCE} option domain={domain!r}: no such domain{nearest(domain, DOMAINS)}")
    rows = (
        read_source_rows(expand_files(query.data_files))
        if query.data_files
        else hub_rows(HUB, "comparisons", _HUB_SPLITS[query.split])
    )
    seen = Occurrences()
    for row in rows:
        said = row.value.get("split") if row.value is not None else _ROW_SPLITS[query.split]
        if said not in _ROW_SPLITS.values():
            detail = f"'split': expected {', '.join(_ROW_SPLITS.values())}, got {said!r:.80}"
            yield Dropped(row.where, UNKNOWN_SPLIT, detail, row.value)
        elif said == _ROW_SPLITS[query.split]:  # the others belong to another split of ours
            yield _pair(row, query.split, domain, seen)


def _pair(row: SourceRow, split: str, domain: str, seen: Occurrences) -> Item:
    if row.value is None:
        return malformed(row, row.problem)
    problem = _problem(row.value)
    if problem:
        return malformed(row, problem)
    info = cast("dict[str, Any]", row.value["info"])
    post, article = info.get("post"), info.get("article")
    kind = "tldr" if post is not None else "cnndm"
    if domain not in (kind, "all"):
        return Dropped(row.where, f"domain_{kind}", f"a {kind} row; the option domain is {domain}", row.value)
    context = str(post if post is not None else article).strip()
    first, second = (str(summary["text"]).strip() for summary in row.value["summaries"])
    if not context or not first or not second:
        return Dropped(row.where, "empty_text", "the post or a summary is empty", row.value)
    if first == second:
        return Dropped(row.where, "identical_responses", "the two summaries are equal", row.value)
    if kind == "tldr":
        context = _post(info, context)
    meta = _meta(row.value, info, kind)
    label = str(row.value.get("worker") or "")
    return seen.pair(
        context, (first, second), int(row.value["choice"]), source=SOURCE, split=split, label=label, meta=meta
    )


def _post(info: Mapping[str, Any], post: str) -> str:
    """Return the post as labelers saw it: subreddit and title, where known, above the text."""
    lines = [f"SUBREDDIT: r/{info['subreddit']}" if info.get("subreddit") else "", f"TITLE: {info.get('title') or ''}"]
    head = "\n".join(line for line in lines if line and line != "TITLE: ")
    return f"{head}\nPOST: {post}" if head else post


def _meta(value: Mapping[str, Any], info: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return who labelled, how sure they were, and which policies wrote the summaries."""
    extra = cast("dict[str, Any]", value.get("extra") or {})
    return {
        "domain": kind,
        "subset": kind,
        "post_id": info.get("id"),
        "worker": value.get("worker"),
        "batch": value.get("batch"),
        "confidence": extra.get("confidence"),
        "policy_0": value["summaries"][0].get("policy"),
        "policy_1": value["summaries"][1].get("policy"),
    }


def _problem(value: Mapping[str, Any]) -> str:
    """Return what is wrong with a comparison row, '' for nothing."""
    info, summaries, choice = value.get("info"), value.get("summaries"), value.get("choice")
    if not isinstance(info, dict):
        return f"'info': expected an object, got {info!r:.80}"
    texts = [info.get("post"), info.get("article")]
    if not any(isinstance(text, str) for text in texts) or not all(isinstance(t, str | None) for t in texts):
        return "'info' holds neither a post nor an article"
    if not isinstance(summaries, list) or len(cast("list[Any]", summaries)) != 2:
        return f"'summaries': expected two, got {summaries!r:.80}"
    if not all(isinstance(s, dict) and isinstance(s.get("text"), str) for s in cast("list[Any]", summaries)):
        return "'summaries': each needs a 'text'"
    if isinstance(choice, bool) or choice not in (0, 1):
        return f"'choice': expected 0 or 1, got {choice!r:.80}"
    if not isinstance(value.get("extra") or {}, dict):
        return f"'extra': expected an object, got {value['extra']!r:.80}"
    return ""
