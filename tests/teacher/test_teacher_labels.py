"""Several people labelled one pair: it is asked about once, and the answer counts for all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_responses import LAYOUTS, Said, answered, pair_of, settings, written

from btrm.judges.base import Sampling
from btrm.judges.cells import Cell
from btrm.judges.numbered import Pairs
from btrm.prompts import get_prompt
from btrm.records import PreferencePair, read_judgements, write_pairs
from btrm.runs import Resources, RunPaths, StageRun
from btrm.submit import main as submit
from btrm.teacher.base import Call, Usage
from btrm.teacher.journal import Entry
from btrm.teacher.layouts import make_calls
from btrm.teacher.redo import redo
from btrm.teacher.rows import Owed

each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def labelled() -> dict[int, PreferencePair]:
    """Four pairs; the second is labelled by three people, at 1, 2 and, in another batch, 5."""
    one, two, three, four = (pair_of(n, f"one {n}", f"two {n}") for n in range(4))
    others = [replace(two, label_id=f"{two.pair_id}-{who}", preferred=1) for who in (1, 2)]
    return dict(enumerate([one, two, others[0], three, four, others[1]]))


def owed_of(pairs: dict[int, PreferencePair], judge: str = "openai:gpt") -> Owed:
    cell = Cell("part", judge, judge, None, get_prompt("hh_score100_v3"), Sampling(1.0, 1.0, 0, 9), 2, 0)
    return Owed(cell, Pairs([pair.label_id for pair in pairs.values()], len(pairs)), pairs, part_pairs=10)


def reply(call: Call) -> Entry:
    entry = answered(call, written(call, [Said("Fair.")] * len(call.items)))
    return replace(entry, usage=Usage(12, 8), usd=0.4)


@each_layout
def test_a_pair_is_asked_once_and_the_answer_fills_the_rows_of_all_its_labels(layout: str, tmp_path: Path) -> None:
    pairs, config = labelled(), settings(layout, "tags", n_samples=2)
    owed = owed_of(pairs)
    calls = list(make_calls(config, pairs, owed.missing()))
    asked = Counter((item.pair_id, item.side, call.sample) for call in calls for item in call.items)
    assert len(asked) == 4 * 2 * 2 and set(asked.values()) == {1}
    assert sum(owed.fill(reply(call)) for call in calls) == 6 and not list(owed.missing())
    run = StageRun(RunPaths(tmp_path), "teacher", tmp_path / "teacher", Resources(), tmp_path / "stage.json")
    owed.write_parts(run, tmp_path)
    (part,) = tmp_path.glob("*.parquet")
    rows = read_judgements(part).to_pylist()
    assert Counter((row["label_id"], row["side"], row["sample"]) for row in rows) == Counter(
        (pair.label_id, side, sample) for pair in pairs.values() for side in (0, 1) for sample in (0, 1)
    )
    scores = {(row["pair_id"], row["side"], row["sample"]): row["score"] for row in rows}
    assert all(row["score"] == scores[row["pair_id"], row["side"], row["sample"]] for row in rows)
    assert {row["label_id"]: row["preferred_side"] for row in rows} == {p.label_id: p.preferred for p in pairs.values()}
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(0.4 * len(calls))  # what was paid, once
    assert sum(row["prompt_tokens"] for row in rows) == 12 * len(calls)


@each_layout
def test_an_answer_of_another_share_counts_too(layout: str) -> None:
    pairs, config = labelled(), settings(layout, "tags", n_samples=2)
    first, rest = ({n: pair for n, pair in pairs.items() if (n < 2) is early} for early in (True, False))
    journal = [reply(call) for call in make_calls(config, first, owed_of(first).missing())]
    owed = owed_of(rest)
    assert sum(owed.fill(entry) for entry in journal) == 2
    calls = list(make_calls(config, rest, owed.missing()))
    assert {item.pair_id for call in calls for item in call.items} == {rest[3].pair_id, rest[4].pair_id}


def test_what_was_forgotten_counts_for_nobody() -> None:
    pairs, config = labelled(), settings("pointwise", "tags", n_samples=2)
    owed = owed_of(pairs)
    entries = [reply(call) for call in make_calls(config, pairs, owed.missing())]
    gone = next(entry for entry in entries if entry.items[0].pair_id == pairs[1].pair_id)
    for entry in entries:
        owed.fill(entry, {(gone.request_hash, gone.at, *gone.keys[0])})
    assert list(owed.missing()) == list(gone.keys)


def test_a_rule_answers_each_label_by_itself() -> None:
    pairs = labelled()
    assert len(list(owed_of(pairs, "rule_random").missing())) == 6 * 2 * 2


@pytest.mark.usefixtures("need_teacher")
def test_a_stage_asks_once_and_answers_that_are_forgotten_are_asked_once_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api_server import serve
    from api_world import KEY, MODEL

    monkeypatch.setenv("BTRM_SITE", "local")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_pairs(tmp_path / "pairs.parquet", labelled().values())
    with serve() as server:
        words = ["teacher", f"--run={tmp_path}/run", f"--pairs={tmp_path}/pairs.parquet", "--backend=openai"]
        words += [f"--model={MODEL}", f"--base-url={server.url}/v1", "--part-pairs=2", "--concurrency=1"]
        server.world.script[:] = [None, None, None, "truncation"]  # the second pair's second side

        def outcomes(*more: str) -> Counter[str]:
            assert submit([*words, *more]) == 0
            rows = read_judgements(tmp_path / "run/teacher/judgements.parquet").to_pylist()
            assert len({(row["label_id"], row["side"]) for row in rows}) == len(rows) == 12
            return Counter(row["outcome"] for row in rows)

        assert outcomes() == {"scored": 9, "truncated": 3}
        assert redo(tmp_path / "run/teacher", ["truncated"]) == 1
        assert outcomes("--max-tokens=2048") == {"scored": 12}
        bodies = server.world.bodies
        assert len(bodies) == 9
        assert bodies[-1]["messages"] == bodies[3]["messages"] and bodies[-1]["seed"] != bodies[3]["seed"]
        assert [body["max_completion_tokens"] for body in bodies[-2:]] == [1024, 2048]
