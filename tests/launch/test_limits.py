from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from btrm.launch.limits import ClusterLimits, NoClusterError, ask_cluster, check
from btrm.launch.partitions import read_partitions
from btrm.launch.scontrol import gpus, minutes, records
from btrm.launch.site import Limits, Site
from btrm.onebox.box import OneBox
from btrm.runs import Resources

# What 24.11 prints, with what makes it hard: blanks in values, several GPU types, sockets, shards, hidden limits.
NODES = """\
NodeName=a1 Arch=x86_64 CoresPerSocket=32  CPUAlloc=0 CPUEfctv=62 CPUTot=64 CPULoad=0.1 Gres=gpu:h100:4(S:0-1) \
OS=Linux 6.8.0-45 #1 SMP @0  RealMemory=515000 \
AvailableFeatures=nvme,ib,gpu_mem:80gb AllocMem=0 MemSpecLimit=3000 Partitions=gpu,long Reason=was CPUTot=1 bad
NodeName=b1 CPUTot=32 Gres=gpu:a100:2,gpu:v100:6,shard:16 RealMemory=257000 Partitions=gpu CfgTRES=cpu=32,gres/gpu=8
NodeName=c1 CPUTot=128 Gres=(null) RealMemory=1031000 Partitions=cpu
"""
PARTITIONS = """\
PartitionName=gpu AllowAccounts=lab,guest AllowQos=ALL Default=NO QoS=gpuq MaxNodes=4 MaxTime=2-00:00:00 Nodes=a1,b1 \
State=UP TotalNodes=2 TRES=cpu=96,gres/gpu=12
PartitionName=long AllowAccounts=ALL AllowQos=long Default=NO QoS=N/A MaxNodes=UNLIMITED MaxTime=UNLIMITED State=DOWN \
TotalNodes=1
PartitionName=cpu AllowAccounts=ALL Default=YES QoS=N/A MaxNodes=UNLIMITED MaxTime=04:00:00 State=UP TotalNodes=1
"""


def limits(**values: object) -> ClusterLimits:
    found = read_partitions(PARTITIONS, NODES)
    return ClusterLimits(max_array=1001, max_jobs=10000, max_submit=None, queued=0, partitions=found, **values)


def site(**values: object) -> Site:
    return Site.build({"name": "s", "executor": "slurm", **values})


def test_what_scontrol_prints_is_read() -> None:
    first = next(records(NODES))
    assert first["OS"] == "Linux 6.8.0-45 #1 SMP @0" and first["CPUTot"] == "64"
    found = read_partitions(PARTITIONS, NODES)
    gpu, cpu = found["gpu"], found["cpu"]
    assert (gpu.gpus, gpu.gpu_types, gpu.cpus) == (8, ("a100", "h100", "v100"), 62)
    assert (gpu.max_time_min, found["long"].max_time_min, cpu.max_time_min) == (2880, None, 240)
    assert (cpu.gpus, cpu.default, found["long"].up, gpu.accounts) == (0, True, False, ("lab", "guest"))
    assert found["long"].mem_gb == 512000 / 1024


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpu:4", {"": 4}),
        ("gpu", {"": 1}),
        ("gpu:h100:4(S:0-1),gpu:a100:2,shard:8", {"h100": 4, "a100": 2}),
        ("(null)", {}),
        ("gpu:a100_1g.5gb:7(S:0),craynetwork:4", {"a100_1g.5gb": 7}),
    ],
)
def test_gpus_of_a_gres_field(text: str, found: dict[str, int]) -> None:
    assert gpus(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("7-12:30:00", 7 * 1440 + 750), ("01:30:00", 90), ("30:00", 30), ("45", 45), ("2-06", 3240), ("UNLIMITED", None)],
)
def test_time_limits(text: str, found: int | None) -> None:
    assert minutes(text) == found


def test_a_request_that_fits_has_no_problems() -> None:
    assert check(limits(), site(), Resources(cpus=128, mem_gb=1000, time_min=240), "pairs") == []
    assert check(limits(), site(partition="gpu", account="lab"), Resources(gpus=8, cpus=32), "grpo") == []
    assert check(limits(), site(partition="gpu", constraint="nvme&[ib*2|(gpu_mem:80gb)]"), Resources(), "grpo") == []
    both = site(partition="cpu,gpu")  # any one of several may serve
    assert check(limits(), both, Resources(gpus=8, cpus=32), "grpo") == []


def test_what_asks_for_no_gpus_is_checked_where_it_goes() -> None:
    parted = site(partition="gpu", account="lab", cpu_partition="cpu", constraint="h100")
    assert check(limits(), parted, Resources(time_min=240), "pairs") == []
    (said,) = check(limits(), parted, Resources(time_min=241), "pairs")
    assert "--time 241: partition cpu allows 240" in said
    assert limits().longest_min(parted.seen_by(0)) == 240 and limits().longest_min(parted.seen_by(1)) == 2880
    assert limits().longest_min(site(partition="cpu,gpu")) == 2880
    assert limits().longest_min(site(partition="cpu,long")) is None
    assert limits(max_time_min=60).longest_min(site(partition="cpu,long")) == 60


def test_everything_that_is_wrong_is_said_at_once() -> None:
    asked = Resources(nodes=3, gpus=16, cpus=100, mem_gb=900, time_min=9999)
    problems = check(limits(), site(partition="gpu", account="other"), asked, "grpo")
    for part in (
        "grpo: --nodes 3: partition gpu gives at most 2",
        "grpo: --gpus 16: a node of partition gpu has at most 8",
        "grpo: --cpus 100: a node of partition gpu has at most 62",
        "grpo: --mem-gb 900: a node of partition gpu gives at most 500",
        "grpo: --time 9999: partition gpu allows 2880 minutes",
        "grpo: account 'other': partition gpu takes lab, guest",
    ):
        assert part in problems
    assert len(problems) == 6


@pytest.mark.parametrize(
    ("own", "asked", "said"),
    [
        ({"partition": "gpus"}, Resources(), "partition 'gpus': none that you may use; did you mean gpu?"),
        ({}, Resources(gpus=1), "--gpus 1: a node of partition cpu has none"),
        ({"partition": "gpu", "gpu_type": "h200"}, Resources(gpus=1), "did you mean h100?"),
        ({"partition": "gpu", "gpu_type": "a100"}, Resources(gpus=4), "has at most 2 a100"),
        ({"partition": "gpu"}, Resources(gpus=8, cpus=40), "0 of partition gpu have 8 GPUs, 40 CPUs and 8 GB together"),
        ({"partition": "gpu"}, Resources(nodes=2, gpus=6), "1 of partition gpu have 6 GPUs"),
        (
            {"partition": "gpu", "constraint": "nvme&[ibb*2|(gpu_mem:80gb)]"},
            Resources(),
            "'ibb': no node of partition gpu",
        ),
        ({"partition": "long", "qos": "long"}, Resources(), "partition long: not up now"),
        ({"partition": "long", "qos": "normal"}, Resources(), "qos 'normal': partition long takes long"),
    ],
)
def test_a_wrong_request_names_what_is_valid(own: dict[str, str], asked: Resources, said: str) -> None:
    problems = check(limits(), site(**own), asked, "step")
    assert [line for line in problems if said in line], problems


def test_the_tightest_time_limit_of_account_and_qos_counts() -> None:
    problems = check(limits(max_time_min=60), site(), Resources(time_min=61), "judge")
    assert problems == ["judge: --time 61: your account or qos allows 60 minutes"]


def test_memory_is_not_checked_where_it_is_not_asked_for() -> None:
    assert check(limits(), site(request_memory=False), Resources(mem_gb=9000), "pairs") == []


def test_room_is_what_the_queue_leaves() -> None:
    assert limits().room == 10000
    full = ClusterLimits(max_array=10, max_jobs=100, max_submit=7, queued=5, partitions={})
    assert full.room == 2


def test_without_a_cluster_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoClusterError, match=r"could not be checked: no Slurm answers here \(scontrol: not on PATH\)"):
        ask_cluster(site())


def test_a_command_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from btrm.launch import scontrol

    (tmp_path / "sinfo").write_text("#!/bin/sh\nexec sleep 30\n")
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(scontrol.NotAnsweredError, match="no answer in 0 s"):
        scontrol.ask(["sinfo"], timeout_s=0.2)


def test_no_secret_and_no_filter_reaches_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    from btrm.launch.scontrol import ask

    monkeypatch.setenv("HF_TOKEN", "canary")
    monkeypatch.setenv("SQUEUE_STATES", "PD")
    seen = ask([sys.executable, "-c", "import os; print(*os.environ)"]).split()
    assert "PATH" in seen and not {"HF_TOKEN", "SQUEUE_STATES"} & set(seen)


@pytest.mark.slow
def test_a_real_cluster_tells_its_limits(slurm: Callable[..., OneBox]) -> None:
    box = slurm(nodes=2, gpus=4, cpus=4, mem_gb=16, max_array=50, max_jobs=77, max_time="90")
    found = ask_cluster(site())
    assert (found.max_array, found.max_jobs, found.max_submit, found.queued, found.unknown) == (50, 77, None, 0, [])
    low = found.partitions[found.default_partition or ""]
    assert (low.name, low.nodes, low.cpus, low.gpus, low.max_time_min) == ("low", 2, 4, 4, 90)
    box.run("sbatch", "--hold", "--array=0-6", "--wrap", "true")
    box.run("sbatch", "--hold", "--wrap", "true")
    assert ask_cluster(site()).queued == 8
    own = ask_cluster(site(limits={"max_array": 10, "max_submit": 9}))
    assert (own.max_array, own.room) == (10, 1)
    assert Limits().max_array is None


@pytest.mark.slow
def test_a_request_that_check_passes_runs_and_one_that_it_refuses_cannot(slurm: Callable[..., OneBox]) -> None:
    box = slurm(nodes=2, gpus=2, cpus=2, mem_gb=8, max_time="30", extra="EnforcePartLimits=ALL")
    found = ask_cluster(site())
    for asked in (
        Resources(cpus=1, mem_gb=1, time_min=30),
        Resources(nodes=2, gpus=2, cpus=2, mem_gb=8, time_min=10),
        Resources(nodes=3, cpus=1, mem_gb=1, time_min=10),
        Resources(gpus=3, cpus=1, mem_gb=1, time_min=10),
        Resources(cpus=3, mem_gb=1, time_min=10),
        Resources(cpus=1, mem_gb=9, time_min=10),
        Resources(cpus=1, mem_gb=1, time_min=31),
    ):
        gpu_words = [f"--gpus-per-node={asked.gpus}"] if asked.gpus else []
        words = [f"--nodes={asked.nodes}", f"--cpus-per-task={asked.cpus}", f"--mem={asked.mem_gb}G", *gpu_words]
        words += [f"--time={asked.time_min}", "--ntasks-per-node=1", "--test-only", "--wrap", "true"]
        done = subprocess.run(["sbatch", *words], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (check(found, site(), asked, "x") == []), (asked, done.stderr)
    assert box.node_states()


@pytest.mark.slow
def test_accounts_qos_and_max_submit_are_read(slurm: Callable[..., OneBox]) -> None:
    box = slurm(nodes=1, accounting=True, extra="AccountingStorageEnforce=limits,qos")
    me = box.run("id", "-un")
    for words in (
        "add qos small maxsubmitjobsperuser=5 maxwall=01:00:00",
        "add account lab maxsubmitjobs=50",
        f"add user {me} account=lab qos=normal,small",
        f"modify user {me} set defaultaccount=lab",
    ):
        box.run("sacctmgr", "-i", *words.split())
    plain = ask_cluster(site(account="lab"))
    assert (plain.max_submit, plain.unknown) == (50, [])
    small = ask_cluster(site(account="lab", qos="small"))
    assert (small.max_submit, small.max_time_min) == (5, 60)
    wrong = check(small, site(account="lap", qos="smal"), Resources(cpus=1), "sft")
    assert any("account 'lap': not yours; yours: lab" in line for line in wrong)
    assert any("did you mean small?" in line for line in wrong)
    assert check(small, site(account="lab", qos="small"), Resources(cpus=1), "sft") == []
    box.kill("slurmdbd")
    blind = ask_cluster(site(account="lab"))
    assert blind.max_submit is None and blind.unknown[0].startswith("accounts, qos and MaxSubmitJobs: sacctmgr")
