"""Scripts as sbatch is given them, held against files. To write them anew: BTRM_GOLDEN=write pytest this file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from btrm.hub import hub_cache
from btrm.launch.jobs import Job, controller, make_jobs
from btrm.launch.sbatch import Request, bound, gpu_parameters, job_environment, script
from btrm.launch.site import Container, Site
from btrm.launch.submission import Plan, PlannedStep, Submission
from btrm.onebox.box import OneBox
from btrm.runs import Resources

GOLDEN = Path(__file__).parent / "golden"
RUN = "/runs/study"
NODE = Resources(gpus=8, cpus=64, mem_gb=512, time_min=1440)
PLAIN = Site(name="plain", executor="slurm", partition="low", python="/opt/python")
TYPED = Site(
    name="typed",
    executor="slurm",
    partition="gpu",
    account="lab",
    qos="high",
    gpu_request="gres",
    gpu_type="h100",
    request_memory=False,
    constraint="ib&h100",
    setup=("module load python/3.11",),
    umask="007",
    python="/opt/python",
    slurm={"reservation": "tuesday", "hold": "true"},
    env={"HF_HOME": "/scratch/my cache"},
)
APPTAINER = Site(
    name="image",
    executor="slurm",
    partition="low",
    offline=True,
    mail_user="me@example.org",
    python="/opt/python",
    container=Container(image="/images/btrm.sif", binds=("/data", "/scratch:/scratch:ro"), args=("--writable-tmpfs",)),
)
PYXIS = APPTAINER.model_copy(
    update={
        "name": "srun",
        "scratch": "~/$USER/`x`",
        "container": Container(runtime="pyxis", image="/images/btrm.sqsh", binds=("/data", "/scratch:/scratch:ro")),
    }
)


def planned(stage: str, resources: Resources, elements: int | None = None, parallelism: int | None = None) -> Plan:
    step = PlannedStep(
        name=stage, stage=stage, config={}, resources=resources, elements=elements, parallelism=parallelism
    )
    return Plan(root=RUN, steps=(step,), env={}, code=f"{RUN}/.code/0123456789abcdef")


def first(plan: Plan) -> Job:
    return make_jobs(plan.steps, 1001)[0]


def text(plan: Plan, site: Site, job: Job | None = None, dependencies: str = "") -> str:
    image = {"image_sha256": "5" * 64, "image_stat": "12 345 6789"} if site.container else {}
    request = Request(Submission(Path(f"{RUN}/.jobs/S1")), plan.model_copy(update={"env": site.env, **image}), site)
    return script(job or first(plan), replace(request, dependencies=dependencies))


GRES = PLAIN.model_copy(update={"gpu_request": "gres"})
SCRIPTS: dict[str, Callable[[], str]] = {
    "grpo-1x8": lambda: text(planned("grpo", NODE), PLAIN),
    "grpo-2x8": lambda: text(planned("grpo", NODE.model_copy(update={"nodes": 2})), PLAIN, dependencies="afterok:7"),
    "grpo-server-and-trainer": lambda: text(planned("grpo", NODE.model_copy(update={"nodes": 3})), PLAIN),
    "judge-array-gres": lambda: text(planned("judge", Resources(gpus=1, cpus=8, time_min=240), 1000, 32), GRES),
    "judge-commit": lambda: text(
        (plan := planned("judge", NODE, 1000)), PLAIN, make_jobs(plan.steps, 1001)[-1], "afterok:8"
    ),
    "sft-typed-gres": lambda: text(planned("sft", NODE), TYPED),
    "grpo-apptainer": lambda: text(planned("grpo", NODE), APPTAINER),
    "grpo-2-nodes-apptainer": lambda: text(planned("grpo", NODE.model_copy(update={"nodes": 2})), APPTAINER),
    "grpo-pyxis": lambda: text(planned("grpo", NODE), PYXIS),
    "judge-array-pyxis": lambda: text(planned("judge", Resources(gpus=1, cpus=8, time_min=240), 1000, 32), PYXIS),
    "control": lambda: text((plan := planned("grpo", NODE)), APPTAINER, controller(plan.steps), "afterany:7:8"),
}


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The submitter's own cache, at a place that the files do not name."""
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_the_golden_ones(name: str, hub: Path) -> None:
    file, made = GOLDEN / f"{name}.sh", SCRIPTS[name]().replace(str(hub), "/home/me/huggingface")
    if os.environ.get("BTRM_GOLDEN") == "write":
        file.write_text(made)
    assert made == file.read_text()
    subprocess.run(["bash", "-n", str(file)], check=True)


@pytest.mark.parametrize("site", [APPTAINER, PYXIS], ids=lambda site: site.name)
@pytest.mark.parametrize("nodes", [1, 2])
def test_an_image_changes_the_commands_prefix_and_what_is_set_for_it_alone(site: Site, nodes: int) -> None:
    plan = planned("grpo", NODE.model_copy(update={"nodes": nodes}))
    bare = text(plan, site.model_copy(update={"container": None})).splitlines()
    inside = text(plan, site).splitlines()
    added = [line for line in inside if line not in bare]
    removed = [line for line in bare if line not in inside]
    assert [line for line in inside if line in bare] == [line for line in bare if line not in removed]
    (before,), (after,) = removed, [line for line in added if line.startswith("srun ")]
    runner = f"-m btrm.launch.job {RUN}/.jobs/S1 grpo run 0"
    assert before.endswith(f" /opt/python {runner}") and after.endswith(f" python -m btrm.launch.inside {runner}")
    start = before.removesuffix(f" /opt/python {runner}")
    assert after.startswith(start)
    others = [line for line in added if line != after]
    ours = ("unset ", "image_check", "  ", "}", "export -f image_check; srun ", "mounts=", "mkdir ", "[ ! -d ")
    names = re.compile(r"export (BTRM_IMAGE|BTRM_IMAGE_SHA256|APPTAINERENV_PYTHONPATH|\w+_CACHE\w*|HF_HOME)=")
    assert all(line.startswith(ours) or names.match(line) for line in others), others


def test_every_golden_file_is_compared() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.sh")) == sorted(SCRIPTS)


@pytest.mark.slow
def test_sbatch_accepts_them(slurm: Callable[..., OneBox], tmp_path: Path) -> None:
    box = slurm(nodes=3, cpus=64)
    plain = {name: SCRIPTS[name]() for name in SCRIPTS if name != "sft-typed-gres"}
    for name, made in plain.items():
        file = tmp_path / f"{name}.sh"
        # jobs of another cluster cannot be waited for
        file.write_text("\n".join(line for line in made.splitlines() if "--dependency" not in line))
        done = subprocess.run(["sbatch", "--test-only", str(file)], env=os.environ | box.env, capture_output=True)
        assert done.returncode == 0, (name, done.stderr)


@pytest.mark.parametrize(
    ("style", "kind", "gpus", "expected"),
    [
        ("gpus-per-node", None, 8, {"gpus_per_node": "8"}),
        ("gpus-per-node", "a100", 4, {"gpus_per_node": "a100:4"}),
        ("gres", None, 8, {"gres": "gpu:8"}),
        ("gres", "h100", 2, {"gres": "gpu:h100:2"}),
        ("gres", "h100", 0, {}),
    ],
)
def test_gpus_are_asked_for_as_the_site_wants(
    style: str, kind: str | None, gpus: int, expected: dict[str, str]
) -> None:
    site = Site.build({"name": "x", "executor": "slurm", "gpu_request": style, "gpu_type": kind})
    assert gpu_parameters(Resources(gpus=gpus), site) == expected


def test_a_job_without_gpus_goes_to_its_own_partition() -> None:
    site = TYPED.model_copy(update={"cpu_partition": "small"})
    plan = planned("judge", NODE, 10)
    array, commit = make_jobs(plan.steps, 1001)
    assert "--partition=gpu\n" in text(plan, site, array) and "--constraint='ib&h100'\n" in text(plan, site, array)
    for job in (commit, controller(plan.steps)):
        assert "--partition=small\n" in text(plan, site, job) and "--constraint" not in text(plan, site, job)


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 15), (2, 30), (8, 120), (1440, 120)])
def test_the_warning_never_comes_at_a_job_s_start(minutes: int, seconds: int) -> None:
    assert f"--signal=URG@{seconds}\n" in text(planned("grpo", NODE.model_copy(update={"time_min": minutes})), PLAIN)


def test_switches_of_sbatch_take_no_value_and_can_be_put_off() -> None:
    site = PLAIN.model_copy(update={"slurm": {"requeue": "false", "exclusive": "true", "licenses": "a:1"}})
    lines = text(planned("sft", NODE), site).splitlines()
    assert "#SBATCH --exclusive" in lines and "#SBATCH --licenses=a:1" in lines
    assert not [line for line in lines if "requeue" in line and line.startswith("#SBATCH")]


def test_paths_with_spaces_stay_whole() -> None:
    plan = planned("sft", NODE).model_copy(update={"code": None})
    made = script(first(plan), Request(Submission(Path("/my runs/.jobs/S1")), plan, PLAIN))
    checked = subprocess.run(["bash", "-n"], input=made, text=True, capture_output=True)
    assert checked.returncode == 0 and "'/my runs/.jobs/S1'" in made
    assert "/my runs" not in made.replace("'/my runs", "").replace("--output='", "")


def test_an_image_sees_the_run_the_code_the_hubs_cache_and_not_the_home(hub: Path) -> None:
    assert bound(planned("sft", NODE)) == [RUN, f"{RUN}/.code/0123456789abcdef", str(hub)]


def test_a_run_behind_a_link_is_there_by_both_names(tmp_path: Path, hub: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    run, real = tmp_path / "runs" / "study", tmp_path / "scratch" / "study"
    plan = planned("sft", NODE).model_copy(update={"root": str(run), "code": f"{run}/.code/0"})
    assert bound(plan) == [str(run), f"{run}/.code/0", str(hub), str(real), f"{real}/.code/0"]


def test_jobs_take_the_copy_of_the_code_wherever_they_start(tmp_path: Path) -> None:
    """`python -m` would else find the checkout in which sbatch was called."""
    made = SCRIPTS["grpo-1x8"]()
    exports = "\n".join(line for line in made.splitlines() if line.startswith("export PYTHON"))
    for folder in ("checkout", "copy"):
        (tmp_path / folder / "btrm").mkdir(parents=True)
        (tmp_path / folder / "btrm" / "__init__.py").write_text("")
        (tmp_path / folder / "btrm" / "where.py").write_text(f"print({folder!r})")
    shell = f"{exports}\nexport PYTHONPATH={tmp_path / 'copy'}\n{sys.executable} -m btrm.where"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path / "checkout", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "copy"


def test_jobs_in_an_image_read_the_cache_that_prefetch_fills(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("sft", NODE)
    there = job_environment(APPTAINER, plan)
    assert hub_cache(there) == hub_cache(os.environ) == hub / "hub" and there["XDG_CACHE_HOME"] == f"{RUN}/.cache"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "HF_HOME" not in job_environment(APPTAINER, plan)  # what is not there cannot be bound
    (tmp_path / "huggingface").mkdir()
    assert job_environment(APPTAINER, plan)["HF_HOME"] == str(tmp_path / "huggingface")
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    assert hub_cache(job_environment(APPTAINER, plan)) == hub


def test_a_cache_that_the_site_names_is_taken_and_its_binds_are_the_sites() -> None:
    plan = planned("sft", NODE).model_copy(update={"env": {"HF_HOME": "/scratch/hf"}})
    assert job_environment(APPTAINER, plan)["HF_HOME"] == "/scratch/hf"
    assert len(bound(plan)) == 2
