"""RMB: pairs, and best-of-N prompts with two to six losers, of 49 scenarios of helpfulness and harmlessness.

Zhou et al. 2024 (arXiv 2410.09893), github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark (which names no licence). Not on
the hub: files are those of the repository's folder `RMB_dataset`, one JSON array a scenario.
Pairs: pair_uid, conversation_input (messages), chosen and reject (each with llm_name and answer), category_path.
Best of N: bon_uid, conversation_input, bon_best, loser_list (a list of such), category_path.

Option `set`: `all` (default), `pairwise` (17,131 pairs) or `bon` (3,786 prompts).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from btrm.data.fields import RowError, asked, column, drop, fields, file_rows, read_each, text
from btrm.data.groups import Benchmark, Group, choice_of, crossed
from btrm.data.items import Item, Query
from btrm.data.reading import SourceRow

SOURCE = "rmb"
SETS = ("pairwise", "bon", "all")
_KINDS = {"Pairwise_set": "pairwise", "BoN_set": "best-of-N"}
_WANTED = {"pairwise": "pairwise", "bon": "best-of-N"}
_GOALS = ("Helpfulness", "Harmlessness")


def rmb(query: Query) -> Iterator[Item]:
    """Yield the pairs of each prompt, prompt after prompt."""
    wanted = _WANTED.get(choice_of(query, SOURCE, "set", "all", SETS))
    benchmark = Benchmark(SOURCE, query.split, crossed, {})

    def read(row: SourceRow) -> list[Item]:
        group = _group(row)
        if wanted not in (None, group.meta["set"]):
            return [drop(row, f"set_{group.meta['set']}", f"the option set is {query.options['set']}")]
        return benchmark.pairs(row, group)

    return read_each(file_rows(query, "RMB (the repository's folder RMB_dataset)"), read)


def _group(row: SourceRow) -> Group:
    kind, goal, scenario = _path(row)
    if kind == "pairwise":
        name, good, bad = text(row, "pair_uid"), _response(row, "chosen"), (_response(row, "reject"),)
    else:
        name, good, bad = text(row, "bon_uid"), _response(row, "bon_best"), _losers(row)
    meta = {
        "set": kind,
        "part": f"{goal.lower()} {kind}",
        "chosen_model": good.get("llm_name"),
        "rejected_models": [response.get("llm_name") for response in bad],
    }
    answers = tuple(response["answer"] for response in bad)
    context = asked(column(row, "conversation_input"))
    return Group(f"{kind}/{name}", f"{goal}/{scenario}", context, (good["answer"],), answers, meta)


def _path(row: SourceRow) -> tuple[str, str, str]:
    """Return (set, goal, scenario) of a category_path such as `BoN_set/Helpfulness/Code/Data Management`."""
    parts = text(row, "category_path").split("/", 2)
    if len(parts) != 3 or parts[0] not in _KINDS or parts[1] not in _GOALS:
        form = f"{' or '.join(_KINDS)}/{' or '.join(_GOALS)}/SCENARIO"
        raise RowError(f"'category_path': expected {form}, got {fields(row)['category_path']!r:.80}")
    return _KINDS[parts[0]], parts[1], parts[2]


def _response(row: SourceRow, name: str) -> Mapping[str, Any]:
    return _checked(name, column(row, name))


def _losers(row: SourceRow) -> tuple[Mapping[str, Any], ...]:
    value = column(row, "loser_list")
    if not isinstance(value, list) or not value:
        raise RowError(f"'loser_list': expected a list of responses, got {value!r:.80}")
    return tuple(_checked(f"loser_list {i}", item) for i, item in enumerate(cast("list[Any]", value)))


def _checked(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not isinstance(cast("dict[str, Any]", value).get("answer"), str):
        raise RowError(f"{name!r}: expected an object with an answer, got {value!r:.80}")
    return cast("dict[str, Any]", value)
