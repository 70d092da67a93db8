"""A grid judged by the elements of an array: killed, cut anew, doubled; the result is that of one undisturbed run."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import judge_stage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge_stage import RuleEngine, do_share, rows, run_stage, stage_run
from test_judges_grid import config, fake_adapter, fake_model

from btrm.data.toy import toy_pairs
from btrm.judges.base import JudgeAnswer, JudgeRequest, make_request
from btrm.judges.grid import JudgeConfig, halve_batch, share_judge, work_judge
from btrm.prompts import get_prompt
from btrm.records import PreferencePair, read_judgements, write_pairs
from btrm.stopping import Stopped, ask_to_stop, forget
from btrm.teacher.config import TeacherConfig
from btrm.teacher.stage import share_teacher, work_teacher
from btrm.work import Unit, share

pytestmark = pytest.mark.usefixtures("rule_engine")

PAIRS, CELLS = 6, 4


@pytest.fixture(autouse=True)
def nothing_asked_to_stop() -> Generator[None]:
    yield
    forget()


@pytest.fixture
def judge_config(tmp_path: Path, pairs_file: Path) -> JudgeConfig:
    """Two checkpoints, two seeds, six pairs, two pairs a part."""
    return JudgeConfig.build(config(tmp_path, pairs_file, n_pairs=PAIRS, part_pairs=2))


def undisturbed(judge_config: JudgeConfig, root: Path) -> list[dict[str, Any]]:
    run_stage("judge", judge_config, root)
    return rows(root)


def files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "judge" / "cells").iterdir())


def finish(judge_config: JudgeConfig, root: Path) -> list[dict[str, Any]]:
    """Commit what an array has done: no model is loaded any more, and each cell is one file."""
    RuleEngine.opened.clear()
    assert run_stage("judge", judge_config, root).results["asked_now"] == 0
    assert RuleEngine.opened == []
    assert len(files(root)) == CELLS
    return rows(root)


def test_elements_do_all_and_no_more(tmp_path: Path, judge_config: JudgeConfig) -> None:
    asked = [do_share(judge_config, tmp_path / "run", element, 5) for element in range(5)]
    assert sum(asked) == CELLS * PAIRS and max(asked) - min(asked) <= 1
    assert work_judge(judge_config, stage_run(tmp_path / "run")) == []
    assert finish(judge_config, tmp_path / "run") == undisturbed(judge_config, tmp_path / "calm")


@pytest.mark.parametrize("lacks", ["an answer", "a sample"])
def test_too_few_answers_are_an_error_and_no_part_is_named_for_them(
    tmp_path: Path, judge_config: JudgeConfig, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    whole = RuleEngine.ask

    def short(engine: RuleEngine, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        *answers, last = whole(engine, requests)
        return [*answers, replace(last, completions=last.completions[1:])] if lacks == "a sample" else answers

    monkeypatch.setattr(RuleEngine, "ask", short)
    with pytest.raises(ValueError, match="shorter"):
        do_share(judge_config, tmp_path / "run", 0, 1)
    monkeypatch.setattr(RuleEngine, "ask", whole)
    assert finish_with(judge_config, tmp_path / "run") == undisturbed(judge_config, tmp_path / "calm")


def finish_with(judge_config: JudgeConfig, root: Path) -> list[dict[str, Any]]:
    """Do what is left, as a second attempt does."""
    do_share(judge_config, root, 0, 1)
    return finish(judge_config, root)


@pytest.mark.slow
@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(elements=st.integers(1, 4), again=st.integers(1, 6), part_pairs=st.integers(1, 7), seed=st.integers(0, 999))
def test_elements_that_die_and_a_new_array_of_another_size(
    tmp_path_factory: pytest.TempPathFactory,
    pairs_file: Path,
    elements: int,
    again: int,
    part_pairs: int,
    seed: int,
) -> None:
    tmp_path = tmp_path_factory.mktemp("elastic")
    judge_config = JudgeConfig.build(config(tmp_path, pairs_file, n_pairs=PAIRS, part_pairs=part_pairs))
    run, rng = stage_run(tmp_path / "run"), random.Random(seed)
    units = work_judge(judge_config, run)
    done = 0
    for element in range(elements):
        commits = share_judge(judge_config, run, share(units, element, elements))
        done += sum(islice(commits, rng.randint(0, 4)))
    units = work_judge(judge_config, run)
    assert sum(unit.rows for unit in units) == CELLS * PAIRS - done
    for element in range(again):
        done += sum(share_judge(judge_config, run, share(units, element, again)))
    assert done == CELLS * PAIRS
    assert finish(judge_config, tmp_path / "run") == undisturbed(judge_config, tmp_path / "calm")


@pytest.mark.slow
def test_processes_killed_and_a_new_array_of_another_size(tmp_path: Path, judge_config: JudgeConfig) -> None:
    (tmp_path / "config.json").write_text(judge_config.model_dump_json())
    script = [sys.executable, judge_stage.__file__, str(tmp_path / "run"), str(tmp_path / "config.json")]

    def array(kills: Sequence[int]) -> list[int]:
        numbered = [[*script, str(kill), str(element), str(len(kills))] for element, kill in enumerate(kills)]
        return [process.wait(240) for process in [subprocess.Popen(command) for command in numbered]]

    run = stage_run(tmp_path / "run")
    (tmp_path / "run").mkdir()
    do_split(tmp_path / "run", work_judge(judge_config, run))
    assert array([1, 2, 2]) == [-9, -9, -9]
    left = sum(unit.rows for unit in work_judge(judge_config, run))
    assert left == CELLS * PAIRS - 4 * (0 + 1 + 1)  # all but what is in flight is there
    do_split(tmp_path / "run", work_judge(judge_config, run))
    assert array([0, 0, 0, 0, 0]) == [0] * 5
    assert finish(judge_config, tmp_path / "run") == undisturbed(judge_config, tmp_path / "calm")


def do_split(root: Path, units: list[Unit]) -> None:
    judge_stage.write_units(root / "split.json", units)


def test_two_writers_of_one_share_at_once(
    tmp_path: Path, judge_config: JudgeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have asked about the same pairs before either writes, each time."""
    both, asked = threading.Barrier(2), RuleEngine.ask
    monkeypatch.setattr("btrm.judges.chunk_claims.STALE_S", -60)  # as where a file system tells wrong times

    def together(engine: RuleEngine, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        answers = asked(engine, requests)
        both.wait(60)
        return answers

    monkeypatch.setattr(RuleEngine, "ask", together)
    run, errors = stage_run(tmp_path / "run"), list[BaseException]()
    units = work_judge(judge_config, run)
    done = [0, 0]

    def write(number: int) -> None:
        try:
            for pairs in share_judge(judge_config, run, units):
                done[number] += pairs
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    monkeypatch.undo()
    assert not errors
    assert done == [CELLS * PAIRS] * 2
    assert len(files(tmp_path / "run")) == CELLS * PAIRS // 2  # what both asked was won once
    assert finish(judge_config, tmp_path / "run") == undisturbed(judge_config, tmp_path / "calm")


def test_an_orphan_whose_parts_are_cut_otherwise(tmp_path: Path, judge_config: JudgeConfig) -> None:
    """An attempt that Slurm believes dead goes on with its old share while a new array does the same rows."""
    run = stage_run(tmp_path / "run")
    units = work_judge(judge_config, run)
    orphan = share_judge(judge_config.model_copy(update={"part_pairs": 3}), run, units)
    assert next(orphan) == 6  # three pairs at both seeds
    others = share_judge(judge_config, run, units)
    for _ in others:
        next(orphan, None)
    list(orphan)
    assert len(files(tmp_path / "run")) > CELLS * PAIRS // 2
    assert finish(judge_config, tmp_path / "run") == undisturbed(judge_config, tmp_path / "calm")


def test_a_share_that_was_done_meanwhile_loads_no_model(
    rule_engine: type[RuleEngine], tmp_path: Path, judge_config: JudgeConfig
) -> None:
    run = stage_run(tmp_path / "run")
    units = work_judge(judge_config, run)
    assert sum(share_judge(judge_config, run, units)) == CELLS * PAIRS
    rule_engine.opened.clear()
    assert list(share_judge(judge_config, run, units)) == []
    assert rule_engine.opened == []


def test_a_stop_is_answered_after_the_next_commit(
    rule_engine: type[RuleEngine], tmp_path: Path, judge_config: JudgeConfig
) -> None:
    run = stage_run(tmp_path / "run")
    units, done = work_judge(judge_config, run), 0
    with pytest.raises(Stopped, match="time is up"):
        for pairs in share_judge(judge_config, run, units):
            done += pairs
            ask_to_stop("time is up")
    assert done == 2 * 2 and len(rule_engine.asked) == 1  # two pairs at both seeds
    forget()
    assert sum(unit.rows for unit in work_judge(judge_config, run)) == CELLS * PAIRS - done
    assert undisturbed(judge_config, tmp_path / "run") == undisturbed(judge_config, tmp_path / "calm")


def test_small_cells_are_asked_together(rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path) -> None:
    write_pairs(tmp_path / "few.parquet", toy_pairs("train", 2))
    both = {"few": str(tmp_path / "few.parquet"), "test": str(pairs_file)}
    values = config(tmp_path, pairs_file, n_pairs=4, seeds=list(range(9)), part_pairs=4)
    many = JudgeConfig.build({**values, "pairs": both})
    undisturbed(many, tmp_path / "run")
    assert rule_engine.asked == [9 * 2 * 2, 9 * 4 * 2] * 2  # two data sets, a checkpoint after the other
    undisturbed(many.model_copy(update={"part_pairs": 6}), tmp_path / "together")
    assert rule_engine.asked[4:] == [9 * (2 + 4) * 2] * 2


def test_both_sides_and_all_seeds_of_a_pair_stand_side_by_side(
    tmp_path: Path, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = list[tuple[str, int, int]](), RuleEngine.ask

    def noted(engine: RuleEngine, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        asked.extend((request.pair.label_id, request.side, request.seed) for request in requests)
        return answer(engine, requests)

    monkeypatch.setattr(RuleEngine, "ask", noted)
    values = config(tmp_path, pairs_file, n_pairs=4, seeds=[5, 6, 7], part_pairs=2)
    one = JudgeConfig.build({**values, "checkpoints": {"base": values["base"]}})
    run_stage("judge", one, tmp_path / "run")
    requests = [
        make_request(pair, side, get_prompt("toy_score100"), 2, seed)
        for pair in toy_pairs("test", 4)
        for side in (0, 1)
        for seed in (5, 6, 7)
    ]
    assert asked == [(request.pair.label_id, request.side, request.seed) for request in requests]


def test_a_response_of_several_pairs_is_asked_about_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = list[JudgeRequest](), RuleEngine.ask

    def noted(engine: RuleEngine, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        asked.extend(requests)
        return answer(engine, requests)

    monkeypatch.setattr(RuleEngine, "ask", noted)
    group = [PreferencePair.make("c", ("best", other), 0, source="s", split="test") for other in "xyz"]
    labels = [PreferencePair.make("c", ("best", "x"), 1, source="s", split="test", label=str(n)) for n in (1, 2)]
    write_pairs(tmp_path / "group.parquet", [*group, *labels])
    base = fake_model(tmp_path / "model")
    values = config(tmp_path, tmp_path / "group.parquet", n_pairs=None, seeds=[5, 6], part_pairs=9)
    run_stage(
        "judge", JudgeConfig.build({**values, "base": str(base), "checkpoints": {"m": str(base)}}), tmp_path / "r"
    )
    responses = [request.pair.responses[request.side] for request in asked]
    assert sorted(responses) == sorted(2 * ["best", "x", "y", "z"])  # once for each seed
    rows = read_judgements(tmp_path / "r/judge/judgements.parquet").to_pylist()
    assert len(rows) == 5 * 2 * 2 * 2
    best = {(row["seed"], row["sample"], row["score"]) for row in rows if row["side"] == 0}
    assert len(best) == 4  # one answer a seed and sample, whichever pair it stands in


def test_shares_meet_the_checkpoints_of_one_model_together(
    rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path
) -> None:
    base, other = fake_model(tmp_path / "model"), fake_model(tmp_path / "other", width=16)
    checkpoints = {"a": str(base), "b": str(other), "c": str(fake_adapter(tmp_path / "late", base))}
    judge_config = JudgeConfig.build(config(tmp_path, pairs_file, checkpoints=checkpoints))
    run = stage_run(tmp_path / "run")
    units = work_judge(judge_config, run)
    labels = [unit.name.partition("_")[0] for unit in units]
    assert labels == ["a", "a", "c", "c", "b", "b"]
    assert sum(share_judge(judge_config, run, share(units, 0, 2))) == 18
    assert rule_engine.opened == [str(base)]
    done = run_stage("judge", judge_config, tmp_path / "run")
    assert done.results["checkpoints"] == ["a", "b", "c"]  # the config's order, not the models'
    assert rule_engine.opened == [str(base), str(base), str(other)]


def test_parts_that_an_older_version_numbered_are_kept(tmp_path: Path, judge_config: JudgeConfig) -> None:
    run = stage_run(tmp_path / "run")
    list(share_judge(judge_config, run, work_judge(judge_config, run)[:1]))
    parts = sorted((tmp_path / "run/judge/cells").iterdir())
    parts[0].rename(parts[0].with_name("base_seed0.parquet"))
    parts[1].rename(parts[1].with_name("base_seed0.1.parquet"))
    assert sum(unit.rows for unit in work_judge(judge_config, run)) == (CELLS - 1) * PAIRS
    list(share_judge(judge_config, run, work_judge(judge_config, run)))
    assert finish(judge_config, tmp_path / "run") == undisturbed(judge_config, tmp_path / "calm")


def test_a_teacher_is_shared_too(tmp_path: Path, pairs_file: Path) -> None:
    teacher = TeacherConfig.build({"pairs": str(pairs_file), "skip_pairs": 2, "n_pairs": 9, "part_pairs": 2})
    run = stage_run(tmp_path / "run", "teacher")
    units = work_teacher(teacher, run)
    assert units == [Unit("part", ((0, 9),))]
    assert sum(share_teacher(teacher, run, share(units, 1, 3))) == 3
    units = work_teacher(teacher, run)
    assert units == [Unit("part", ((0, 3), (6, 9)))]
    assert sum(sum(share_teacher(teacher, run, share(units, element, 2))) for element in (0, 1)) == 6
    assert run_stage("teacher", teacher, tmp_path / "run").results["asked_now"] == 0
    run_stage("teacher", teacher, tmp_path / "calm")
    assert rows(tmp_path / "run", "teacher") == rows(tmp_path / "calm", "teacher")
    assert len(list((tmp_path / "run/teacher/parts").iterdir())) == 1


def test_ten_thousand_cells_are_planned_by_their_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs(tmp_path / "pairs.parquet", toy_pairs("test", 4))
    values = config(tmp_path, tmp_path / "pairs.parquet", n_pairs=4, seeds=list(range(5000)))
    judge_config, run = JudgeConfig.build(values), stage_run(tmp_path / "run")
    units = work_judge(judge_config, run)
    assert sum(unit.rows for unit in units) == 40_000
    list(share_judge(judge_config, run, units[:1]))
    (part,) = (tmp_path / "run/judge/cells").iterdir()
    for unit in units[1:5000]:  # names say what a part holds; the other seeds' files are empty here
        part.with_name(part.name.replace("base_seed0@pairs.", f"{unit.name}.")).touch()
    monkeypatch.setattr("btrm.judges.numbered.read_part", None)
    left = work_judge(judge_config, run)
    assert [unit.name for unit in left] == [f"sft_seed{seed}@pairs" for seed in range(5000)]


def test_planning_imports_nothing_heavy(tmp_path: Path, judge_config: JudgeConfig) -> None:
    (tmp_path / "config.json").write_text(judge_config.model_dump_json())
    code = (
        "import json, sys; from pathlib import Path; from btrm.judges.grid import JudgeConfig, work_judge; "
        "from btrm.runs import *; root = Path('run'); "
        "run = StageRun(RunPaths(root), 'judge', root / 'judge', Resources(), root / 'stage.json'); "
        "units = work_judge(JudgeConfig.build(json.loads(Path('config.json').read_text())), run); "
        "print(len(units), sorted({'torch', 'transformers', 'vllm', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == f"{CELLS} []"


@pytest.mark.parametrize(
    ("values", "halvings", "batch"),
    [({}, 1, 32), ({"batch_size": 10}, 2, 2), ({"engine": "vllm"}, 1, 128), ({"batch_size": 1}, 3, 1), ({}, 99, 1)],
)
def test_a_batch_is_halved_down_to_one(values: dict[str, Any], halvings: int, batch: int) -> None:
    before = JudgeConfig.build(values)
    after = halve_batch(before, halvings)
    assert after.batch_size == batch
    assert JudgeConfig.build(json.loads(after.model_dump_json())).by_role("setting") == before.by_role("setting")


@pytest.mark.parametrize(
    ("values", "part", "at_once"),
    [
        ({}, 166, 498),
        ({"seeds": [0]}, 500, 500),
        ({"seeds": list(range(400))}, 8, 3200),
        ({"n_samples": 1024}, 1, 3),
        ({"n_samples": 50, "seeds": [0]}, 20, 20),
        ({"part_pairs": 7}, 7, 21),
    ],
)
def test_a_part_is_bounded_by_its_answers(values: dict[str, Any], part: int, at_once: int) -> None:
    made = JudgeConfig.build(values)
    assert (made.pairs_a_part, made.pairs_at_once) == (part, at_once)
