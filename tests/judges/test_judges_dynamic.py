"""Elements that are done take what stragglers have not begun: each row is asked once, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from judge_stage import RuleEngine, rows, run_stage, stage_run
from test_judges_grid import config, fake_adapter, fake_model

from btrm.data.toy import toy_pairs
from btrm.judges import sharing
from btrm.judges.chunk_claims import Claims
from btrm.judges.grid import JudgeConfig, share_judge, work_judge
from btrm.leases import STALE_S
from btrm.records import write_pairs
from btrm.work import Pool, Unit, write_units

pytestmark = pytest.mark.usefixtures("rule_engine")

ELEMENT = Path(__file__).parent / "slow_element.py"


@pytest.fixture
def judge_config(tmp_path: Path) -> JudgeConfig:
    """Two checkpoints, two seeds, 24 pairs, three pairs a part: 32 parts, asked two at a time."""
    write_pairs(tmp_path / "pairs.parquet", toy_pairs("test", 24))
    return JudgeConfig.build(config(tmp_path, tmp_path / "pairs.parquet", n_pairs=24, part_pairs=3))


def units_of(judge_config: JudgeConfig, root: Path) -> list[Unit]:
    return work_judge(judge_config, stage_run(root))


def claims_in(root: Path) -> list[str]:
    return [path.name for path in (root / "judge/.attempts/claims").iterdir()]


def test_a_free_element_does_all_that_nobody_has_begun(tmp_path: Path, judge_config: JudgeConfig) -> None:
    run, units = stage_run(tmp_path / "run"), units_of(judge_config, tmp_path / "run")
    first, late = Pool(units, 0, 3), Pool(units, 2, 3)
    assert sum(share_judge(judge_config, run, first.own(), first)) == 96
    assert RuleEngine.opened == [str(tmp_path / "model")]  # helped on the model that it had
    assert list(share_judge(judge_config, run, late.own(), late)) == []
    assert len(RuleEngine.opened) == 1  # and whoever comes late loads nothing
    assert claims_in(tmp_path / "run") == []
    run_stage("judge", judge_config, tmp_path / "run")
    run_stage("judge", judge_config, tmp_path / "calm")
    assert rows(tmp_path / "run") == rows(tmp_path / "calm")


def test_owner_and_helper_meet_in_the_middle(tmp_path: Path, judge_config: JudgeConfig) -> None:
    run, units = stage_run(tmp_path / "run"), units_of(judge_config, tmp_path / "run")
    one, two = Pool(units, 0, 2), Pool(units, 1, 2)
    owner, helper = share_judge(judge_config, run, one.own(), one), share_judge(judge_config, run, two.own(), two)
    done = [0, 0]
    for _ in range(8):
        done[1] += next(helper)  # its own share: 8 commits of 6
    for _ in range(4):
        done[0] += next(owner)
        done[1] += next(helper)  # from the end of the owner's share
    assert done == [24, 72]
    assert list(owner) == [] and list(helper) == []
    assert sum(RuleEngine.asked) == 96 * 2


def test_what_needs_no_other_model_is_taken_first(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.parquet", toy_pairs("test", 8))
    base, other = fake_model(tmp_path / "model"), fake_model(tmp_path / "other", width=16)
    checkpoints = {"a": str(base), "b": str(other), "c": str(fake_adapter(tmp_path / "late", base))}
    values = config(tmp_path, tmp_path / "pairs.parquet", checkpoints=checkpoints, n_pairs=8, seeds=[0], part_pairs=2)
    judge_config, run = JudgeConfig.build(values), stage_run(tmp_path / "run")
    pool = Pool(work_judge(judge_config, run), 2, 3)  # the share of the other model
    assert [unit.name.partition("_")[0] for unit in pool.own()] == ["b"]
    assert sum(share_judge(judge_config, run, pool.own(), pool)) == 24
    assert RuleEngine.opened == [str(other), str(base)]


def test_help_that_fails_is_left_to_its_owner(
    tmp_path: Path, judge_config: JudgeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, units = stage_run(tmp_path / "run"), units_of(judge_config, tmp_path / "run")
    pool, ask = Pool(units, 0, 2), RuleEngine.ask

    def fails_late(engine: RuleEngine, requests: object) -> object:
        if len(RuleEngine.asked) > 9:
            raise RuntimeError("no more")
        return ask(engine, requests)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(RuleEngine, "ask", fails_late)
    assert sum(share_judge(judge_config, run, pool.own(), pool)) == 60
    assert "which is left to them: no more" in caplog.text and claims_in(tmp_path / "run") == []


def test_own_rows_that_a_dead_helper_leaves_and_that_fail_are_an_error(
    tmp_path: Path, judge_config: JudgeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, run, units = stage_run(tmp_path / "calm"), stage_run(tmp_path / "run"), units_of(judge_config, tmp_path)
    pool, looks = Pool(units, 0, 2), list[float]()
    list(share_judge(judge_config, calm, pool.own()))
    part = sorted(path.name for path in (calm.dir / "cells").iterdir())[-1]

    def fails(engine: RuleEngine, requests: object) -> object:
        raise RuntimeError(f"no {type(engine).__name__} answers {type(requests).__name__}")

    def dies(seconds: float) -> None:
        looks.append(seconds)
        assert len(looks) < 5, "asked again and again"
        monkeypatch.setattr(RuleEngine, "ask", fails)
        helper.release([part])

    monkeypatch.setattr(sharing.time, "sleep", dies)
    with Claims(run.dir / ".attempts" / "claims") as helper, pytest.raises(RuntimeError, match="no RuleEngine"):
        assert helper.take(part)
        list(share_judge(judge_config, run, pool.own(), pool))


def test_claims_hold_while_their_owner_lives(tmp_path: Path) -> None:
    with Claims(tmp_path / "c") as one, Claims(tmp_path / "c") as two:
        assert one.take("part") and not two.take("part") and one.take("part")
        two.release(["part"])
        assert not two.take("part")
        one.release(["part"])
        assert two.take("part") and "part" in two and "part" not in one
    assert list((tmp_path / "c").iterdir()) == []


def test_a_silent_owner_of_another_host_is_dead_after_a_while(tmp_path: Path) -> None:
    (tmp_path / "owner").write_text("elsewhere 1")
    (tmp_path / "part").hardlink_to(tmp_path / "owner")
    with Claims(tmp_path) as claims:
        assert not claims.take("part")
        past = time.time() - STALE_S - 5
        os.utime(tmp_path / "owner", (past, past))
        assert claims.take("part")


def test_a_commit_that_clears_the_folder_away_hurts_no_orphan(tmp_path: Path) -> None:
    with Claims(tmp_path / "c") as claims:
        assert claims.take("one")
        for path in (tmp_path / "c").iterdir():
            path.unlink()
        (tmp_path / "c").rmdir()
        assert claims.take("two")
        claims.release(["one", "two"])


def start(root: Path, element: int, elements: int, until: str) -> subprocess.Popen[bytes]:
    words = [str(root), str(root.parent / "config.json"), str(element), str(elements), until]
    return subprocess.Popen([sys.executable, str(ELEMENT), *words])


def wait_for_begun(root: Path, *elements: int) -> None:
    deadline = time.monotonic() + 120
    while not all((root / f"begun.{element}").exists() for element in elements):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_straggler_and_one_that_is_killed(tmp_path: Path, judge_config: JudgeConfig) -> None:
    """Of four elements one stays at its first batch until others have ended; one dies in the middle of its first."""
    root = tmp_path / "run"
    root.mkdir()
    (tmp_path / "config.json").write_text(judge_config.model_dump_json())
    write_units(root / "split.json", units_of(judge_config, root))
    slow, victim = start(root, 0, 4, "go"), start(root, 3, 4, "never")
    wait_for_begun(root, 0, 3)
    fast = [start(root, element, 4, "0.05") for element in (1, 2)]
    wait_for_begun(root, 1, 2)
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait() == -9
    assert [process.wait(120) for process in fast] == [0, 0]
    (root / "go").touch()
    assert slow.wait(120) == 0
    asked = [json.loads(line) for path in root.glob("asked.*") for line in path.read_text().splitlines()]
    lost = asked.pop(next(place for place, line in enumerate(asked) if line["element"] == 3))
    assert len(lost["keys"]) == 12 and sum(len(line["keys"]) for line in asked) == 96 * 2  # and nothing else twice
    by_slow = sum(line["element"] == 0 for line in asked)
    assert by_slow < 4, f"the straggler asked all {by_slow} of its batches itself"
    assert work_judge(judge_config, stage_run(root)) == []
