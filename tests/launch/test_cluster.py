from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.data.pairs import PairsConfig
from btrm.images import image_stat
from btrm.judges.grid import JudgeConfig
from btrm.launch import cluster, wait
from btrm.launch.cluster import Options, cluster_plan, describe, plan_steps, submit, withheld
from btrm.launch.limits import ClusterLimits, NoClusterError
from btrm.launch.local import run_step
from btrm.launch.partitions import read_partitions
from btrm.launch.plan import Experiment, Step
from btrm.launch.site import Site
from btrm.launch.slurm import NoRoomError
from btrm.launch.submission import Plan, SentJob, new_submission
from btrm.runs import Resources
from btrm.submit import main
from btrm.teacher.config import TeacherConfig
from btrm.train.grpo import GrpoConfig

SITE = Site(name="tried", executor="slurm", partition="low")
CPU = Resources(cpus=1, mem_gb=1, time_min=30)
PAIRS = Step("pairs", PairsConfig(n_pairs={"train": 20, "validation": 2, "test": 2}), CPU)
TEACHER = Step("teacher", TeacherConfig(), CPU)
JUDGE = Step(
    "judge",
    JudgeConfig(
        checkpoints={"base": "/models/base", "grpo": "@grpo/checkpoints/checkpoint-*"},
        pairs="@pairs/test.pairs.parquet",
    ),
    Resources(gpus=2, time_min=90),
)
STUDY = Experiment("study", "", (PAIRS, TEACHER))
NODES = "NodeName=n1 Partitions=low CPUTot=8 RealMemory=65536 Gres=gpu:8 State=IDLE"
LOW = "PartitionName=low Default=YES State=UP TotalNodes=4 MaxTime=1-00:00:00"


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the stand-in for a cluster allows; no job of ours is on it."""
    values = {"max_array": 1001, "max_jobs": 10000, "queued": 0}
    monkeypatch.setattr(
        cluster,
        "ask_cluster",
        lambda _: ClusterLimits(**values, max_submit=None, partitions=read_partitions(LOW, NODES)),
    )
    monkeypatch.setattr(cluster, "live_jobs", lambda _: {})
    return values


def no_cluster(_: Site) -> ClusterLimits:
    raise NoClusterError("no Slurm answers here")


def plan(tmp_path: Path, study: Experiment = STUDY, options: Options | None = None) -> Plan:
    return cluster_plan(study, tmp_path / "run", SITE, options or Options({}))


def test_steps_know_what_they_need_and_how_their_work_is_shared(tmp_path: Path) -> None:
    grpo = Step("grpo", GrpoConfig(model="/models/base", max_steps=250, save_steps=50))
    study = Experiment("study", "", (PAIRS, TEACHER, grpo, JUDGE))
    steps = {step.name: step for step in plan_steps(study, tmp_path, Options({"teacher": 6}, parallelism=2))}
    assert steps["teacher"].needs == ("pairs",) and steps["judge"].needs == ("pairs", "grpo")
    assert (steps["teacher"].elements, steps["teacher"].parallelism) == (6, 2)
    assert (steps["pairs"].elements, steps["pairs"].parallelism) == (None, None)
    assert steps["judge"].elements == 6  # one base, and the five checkpoints that the trainer will leave
    alone = plan_steps(Experiment("study", "", (PAIRS, TEACHER)), tmp_path, Options({"teacher": 1}))
    assert alone[1].elements is None


def test_no_more_elements_are_sent_than_rows_are_missing(tmp_path: Path) -> None:
    ruled = Step("teacher", TeacherConfig(n_pairs=5), CPU)

    def elements(*steps: Step) -> int | None:
        return plan_steps(Experiment("study", "", steps), tmp_path, Options({"teacher": 40}))[-1].elements

    assert elements(PAIRS, ruled) == 40  # nobody knows yet what there will be
    run_step(plan_steps(Experiment("study", "", (PAIRS,)), tmp_path, Options({}))[0], tmp_path)
    assert elements(PAIRS, ruled) == elements(ruled) == 5
    run_step(plan_steps(Experiment("study", "", (ruled,)), tmp_path, Options({}))[0], tmp_path)
    three_more = Step("teacher", ruled.config.model_copy(update={"n_pairs": 8}), CPU)
    assert elements(PAIRS, three_more) == 3
    grown = Step("pairs", PAIRS.config.model_copy(update={"n_pairs": {"train": 40, "validation": 2, "test": 2}}), CPU)
    assert elements(grown, three_more) == 40  # its pairs are not what they will be


@pytest.mark.parametrize("name", ["a%b", "a,b", "a:b", "a\\b", "a\nb"])
def test_a_path_that_slurm_would_read_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"--run .* means something else"):
        cluster_plan(STUDY, tmp_path / name, SITE, Options({}))


def test_commits_and_controllers_are_checked_where_they_will_run(tmp_path: Path, limits: dict[str, int]) -> None:
    site = SITE.model_copy(update={"cpu_partition": "small"})
    gpu = Step("teacher", TEACHER.config, Resources(gpus=1, time_min=30))
    options = Options({"teacher": 4})
    made = cluster_plan(Experiment("study", "", (gpu,)), tmp_path / "run", site, options)
    text = describe(made, site, options)
    assert "teacher.commit, control: partition 'small': none that you may use" in text and limits
    assert text.count("--partition=small") >= 2 and text.count("--partition=low") == 1


def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--shards pairs=4: pairs is one job"):
        plan_steps(STUDY, tmp_path, Options({"pairs": 4}))
    with pytest.raises(ConfigError, match="--shards techer: no such step; valid: pairs, teacher"):
        plan_steps(STUDY, tmp_path, Options({"techer": 4}))


def test_all_problems_are_told_at_once_and_nothing_is_written(tmp_path: Path, limits: dict[str, int]) -> None:
    run_step(plan(tmp_path).steps[0], tmp_path / "run")
    there = sorted(tmp_path.rglob("*"))
    seeded = Step("pairs", PairsConfig(n_pairs={"train": 20, "validation": 2, "test": 2}, seed=3), CPU)
    greedy = Step("judge", JUDGE.config, Resources(nodes=2, gpus=16, time_min=3000))
    study = Experiment("study", "", (seeded, greedy))
    options = Options({}, budget=10, problems=("found before",))
    with pytest.raises(ConfigError) as refused:
        submit(plan(tmp_path, study, options), SITE, options)
    told = str(refused.value)
    for part in (
        "site tried:",
        "found before",
        "pairs: ",
        "seed was 0, now 3",
        "judge: --nodes 2: only trainers",
        "judge: --gpus 16: a node of partition low has at most 8",
        "judge: --time 3000: partition low allows 1440",
        "--budget 10: the plan asks for",
    ):
        assert part in told
    assert sorted(tmp_path.rglob("*")) == there and limits


def test_a_full_queue_is_refused_before_anything_is_written(tmp_path: Path, limits: dict[str, int]) -> None:
    limits["queued"] = 9999
    with pytest.raises(NoRoomError, match="room for 1 of your jobs and the plan has 2"):
        submit(plan(tmp_path), SITE, Options({}))
    assert not (tmp_path / "run").exists()


def test_a_submission_under_way_is_not_sent_twice(
    tmp_path: Path, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(tmp_path)
    before = new_submission(tmp_path / "run", made)
    before.record(SentJob(key="pairs", step="pairs", kind="run", job_id="7"))
    monkeypatch.setattr(cluster, "live_jobs", lambda _: {f"btrm-{before.name}-pairs": "7"})
    with pytest.raises(ConfigError, match=r"pairs, teacher: under way as \S+ \(jobs 7\)"):
        submit(made, SITE, Options({}))
    monkeypatch.setattr(cluster, "live_jobs", lambda _: {f"btrm-{before.name}-control": "9"})
    with pytest.raises(ConfigError, match="under way"):  # it would send what is left
        submit(made, SITE, Options({}))
    assert limits


def test_a_controller_that_has_nothing_left_to_do_keeps_nobody_out(
    tmp_path: Path, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan(tmp_path, Experiment("study", "", (PAIRS,)))
    run_step(first.steps[0], tmp_path / "run")
    before = new_submission(tmp_path / "run", first)
    before.record(SentJob(key="control", step="control", kind="control", job_id="9"))
    monkeypatch.setattr(cluster, "live_jobs", lambda _: {f"btrm-{before.name}-control": "9"})
    monkeypatch.setattr(cluster, "send", lambda jobs, *_: [job.key for job in jobs])
    more = Step("pairs", PairsConfig(n_pairs={"train": 40, "validation": 2, "test": 2}), CPU)
    _, sent = submit(plan(tmp_path, Experiment("study", "", (more,))), SITE, Options({}))
    assert sent == ["pairs"] and limits


def test_a_plan_is_shown_with_what_would_be_refused(
    tmp_path: Path, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits |= {"max_array": 10, "max_jobs": 8}
    options = Options({"teacher": 25}, after="41", budget=1)
    text = describe(plan(tmp_path, options=options), SITE, options)
    table = [line.split()[:2] for line in text.splitlines()[1:6]]
    assert table == [
        ["pairs", "-"],
        ["teacher.0", "10"],
        ["teacher.1", "10"],
        ["teacher.2", "5"],
        ["teacher.commit", "-"],
    ]
    assert "5 sbatch calls, 27 jobs, 0.0 GPU-hours at most" in text
    assert "the queue has room for 7 of them now" in text
    assert "#SBATCH --dependency=afterok:41\n" in text and "--- control" in text
    greedy = Step("judge", JUDGE.config, Resources(gpus=16, time_min=600))
    text = describe(plan(tmp_path, Experiment("study", "", (greedy,))), SITE, Options({}, budget=1))
    refused = text.partition("would be refused:\n")[2]
    assert "  judge: --gpus 16: a node" in refused and "  --budget 1: the plan asks" in refused
    monkeypatch.setattr(cluster, "ask_cluster", no_cluster)
    text = describe(plan(tmp_path), SITE, Options({}))
    assert "could not be checked:\n  no Slurm answers here; arrays are cut at MaxArraySize 1001" in text
    assert not (tmp_path / "run").exists()


def test_secrets_that_dotenv_does_not_hold_are_named(tmp_path: Path) -> None:
    environ = {"HF_TOKEN": "x", "WANDB_API_KEY": "y", "HOME": "/home", "KEYBOARD": "de", "MONKEY": "no"}
    assert withheld(environ) == ["HF_TOKEN", "WANDB_API_KEY"]
    (tmp_path / ".env").write_text("HF_TOKEN=x\n")  # the tests' own folder is the current one
    assert withheld(environ) == ["WANDB_API_KEY"]


def test_a_group_that_shares_its_runs_can_write_what_submit_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def looked(*_: object) -> tuple[None, list[SentJob]]:
        seen.append(os.umask(0o022))
        return None, []

    monkeypatch.setattr(cluster, "submit", looked)
    (tmp_path / "group.toml").write_text('executor = "slurm"\numask = "007"\n')
    words = ["--run", str(tmp_path / "run"), "--site", str(tmp_path / "group.toml"), "--dataset", "toy"]
    before = os.umask(0o077)
    try:
        assert main(["pairs", *words, "--n-pairs", "train=8,validation=2,test=2"]) == 0
    finally:
        os.umask(before)
    assert seen == [0o007]


def test_whoever_stops_waiting_leaves_the_jobs_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = new_submission(tmp_path / "run", plan(tmp_path))
    sent = [SentJob(key="pairs", step="pairs", kind="run", job_id="7")]
    monkeypatch.setattr(cluster, "submit", lambda *_: (made, sent))

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(wait, "wait", interrupted)
    words = ["--run", str(tmp_path / "run"), "--site", "slurm", "--dataset", "toy", "--wait"]
    assert main(["pairs", *words, "--n-pairs", "train=8,validation=2,test=2"]) == 130
    assert f"the jobs go on; btrm status {tmp_path}" in capsys.readouterr().out


def test_a_plan_names_its_image_and_its_code(
    tmp_path: Path, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits["queued"] == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = tmp_path / "x.sif"
    image.write_bytes(b"image")

    def planned(**container: object) -> tuple[Plan, Site]:
        site = Site.build({"name": "tried", "executor": "slurm", "partition": "low", "container": container})
        return cluster_plan(STUDY, tmp_path / "run", site, Options({})), site

    made, _ = planned(image=str(image))
    assert made.image_sha256 == hashlib.sha256(b"image").hexdigest() and made.image_stat == image_stat(image)
    assert made.code is not None and made.code.endswith(f"/.code/{made.code_digest}")
    assert planned(image=f"oras://reg/x@sha256:{'5' * 64}")[0].image_sha256 == "5" * 64
    assert planned(image=str(tmp_path / "no.sif"))[0].image_sha256 is None
    assert plan(tmp_path).image_sha256 is None
    pinned, site = planned(image=str(image), sha256="0" * 64)
    with pytest.raises(ConfigError, match=f"its sha256 is {made.image_sha256}, sha256 = '0{{64}}'; another image"):
        submit(pinned, site, Options({}))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_without_a_cluster_looks_at_the_image_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ask_cluster", no_cluster)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "x.sif").write_bytes(b"image")

    def told(name: str) -> str:
        container = {"image": str(tmp_path / name), "sha256": "0" * 64}
        site = Site.build({"name": "tried", "executor": "slurm", "container": container})
        return describe(cluster_plan(STUDY, tmp_path / "run", site, Options({})), site, Options({}))

    assert "another image, or a new pin" in told("x.sif").rpartition("would be refused:")[2]
    unchecked = told("no.sif").rpartition("could not be checked:")[2]
    assert "no such file here" in unchecked and "would be refused:" not in unchecked


def test_an_image_without_a_digest_is_refused_or_warned_of(
    tmp_path: Path, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert limits["queued"] == 0
    monkeypatch.setattr(cluster, "send", lambda *_: [])
    monkeypatch.setattr(cluster, "send_patrol", lambda *_: None)
    (tmp_path / "sandbox").mkdir()

    def site(unpinned: bool) -> Site:
        container = {"image": str(tmp_path / "sandbox"), "unpinned": unpinned}
        return Site.build({"name": "tried", "executor": "slurm", "partition": "low", "container": container})

    made = cluster_plan(STUDY, tmp_path / "run", site(unpinned=False), Options({}))
    with pytest.raises(ConfigError, match="no sha256 that jobs could be held to"):
        submit(made, site(unpinned=False), Options({}))
    assert "has no sha256" in describe(made, site(unpinned=False), Options({})).partition("would be refused:")[2]
    assert f"  image {tmp_path}/sandbox: unpinned; jobs" in describe(made, site(unpinned=True), Options({}))
    assert submit(made, site(unpinned=True), Options({}))[0] is not None
    assert [record.getMessage()[:11] for record in caplog.records if record.levelname == "WARNING"] == ["WARN image "]
