from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from btrm.cli import main
from btrm.config import ConfigError
from btrm.launch.limits import ClusterLimits, ask_cluster, check
from btrm.launch.partitions import read_partitions
from btrm.launch.site import load_site
from btrm.onebox.box import OneBox
from btrm.operate.site_init import choose, profile
from btrm.runs import Resources

MIXED = """\
NodeName=a1 CPUTot=64 Gres=gpu:h100:8 RealMemory=515000 Partitions=gpu
NodeName=b1 CPUTot=32 Gres=gpu:a100:4 RealMemory=257000 Partitions=gpu,staff
NodeName=c1 CPUTot=128 Gres=(null) RealMemory=1031000 Partitions=cpu
"""
CONFIG = {"ClusterName": "alps", "SLURM_VERSION": "24.11.5", "SelectType": "select/cons_tres"}


def partition(name: str, **values: str) -> str:
    usual = {"AllowAccounts": "ALL", "Default": "NO", "MaxTime": "UNLIMITED", "State": "UP", "TotalNodes": "1"}
    return " ".join([f"PartitionName={name}", *(f"{k}={v}" for k, v in {**usual, **values}.items())]) + "\n"


def limits(partitions: str, nodes: str = MIXED) -> ClusterLimits:
    found = read_partitions(partitions, nodes)
    return ClusterLimits(max_array=1001, max_jobs=10000, max_submit=None, queued=0, partitions=found)


def written(tmp_path: Path, found: ClusterLimits, config: dict[str, str] = CONFIG) -> Path:
    path = tmp_path / "new.toml"
    path.write_text(profile(found, config))
    return path


def test_the_partition_with_gpus_is_taken_and_a_mixed_one_asks_by_type(tmp_path: Path) -> None:
    found = limits(partition("cpu", Default="YES") + partition("gpu") + partition("staff", AllowAccounts="staff"))
    path = written(tmp_path, found)
    site = load_site(str(path))
    assert (site.partition, site.gpu_request, site.gpu_type) == ("gpu", "gres", "h100")
    assert check(found, site, Resources(gpus=8, cpus=64), "grpo") == []
    text = path.read_text()
    assert "# or a100" in text and "8 h100" in text and "for staff" in text
    assert '# cpu_partition = "cpu"' in text


def test_a_default_partition_with_gpus_is_kept(tmp_path: Path) -> None:
    found = limits(partition("staff", Default="YES") + partition("gpu"))
    site = load_site(str(written(tmp_path, found)))
    assert (site.partition, site.gpu_request, site.gpu_type) == ("staff", "gpus-per-node", None)


def test_what_is_down_is_not_taken() -> None:
    found = limits(partition("gpu", State="DOWN") + partition("cpu"))
    assert choose(found).name == "cpu"
    with pytest.raises(ConfigError, match="no partition"):
        choose(limits(""))


def test_old_selection_takes_gres(tmp_path: Path) -> None:
    config = {**CONFIG, "SelectType": "select/cons_res"}
    site = load_site(str(written(tmp_path, limits(partition("staff")), config)))
    assert site.gpu_request == "gres"


def test_a_partition_that_takes_jobs_from_some_nodes_only_has_no_jobs_that_submit(tmp_path: Path) -> None:
    site = load_site(str(written(tmp_path, limits(partition("staff", AllocNodes="login1,login2")))))
    assert not site.submit_from_nodes


@pytest.mark.slow
def test_a_real_cluster_writes_a_profile_that_its_jobs_run_with(
    slurm: Callable[..., OneBox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    box = slurm(nodes=2, gpus=2, cpus=2)
    assert main(["site", "init", "mine"]) == 0
    assert "written to" in capsys.readouterr().out
    site = load_site("mine")
    assert (site.partition, site.gpu_request) == ("low", "gpus-per-node")
    assert check(ask_cluster(site), site, Resources(gpus=2, cpus=2), "x") == []
    words = ["--partition", str(site.partition), "--gpus-per-node=2", "printenv", "CUDA_VISIBLE_DEVICES"]
    assert box.run("srun", *words) == "0,1"
    assert main(["site", "init", "mine"]) == 2
    assert "there already; --force" in capsys.readouterr().err
    assert main(["site", "init", "mine", "--force"]) == 0
    out = tmp_path / "elsewhere.toml"
    assert main(["site", "init", "--out", str(out)]) == 0 and load_site(str(out)).name == "elsewhere"


@pytest.mark.slow
def test_accounts_are_written_where_the_cluster_wants_them(slurm: Callable[..., OneBox], tmp_path: Path) -> None:
    box = slurm(nodes=1, accounting=True, extra="AccountingStorageEnforce=associations")
    me = box.run("id", "-un")
    for words in ("add account lab", f"add user {me} account=lab", f"modify user {me} set defaultaccount=lab"):
        box.run("sacctmgr", "-i", *words.split())
    assert main(["site", "init", "--out", str(tmp_path / "lab.toml")]) == 0
    assert load_site(str(tmp_path / "lab.toml")).account == "lab"


def test_without_a_cluster_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["site", "init", "--out", str(tmp_path / "x.toml")]) == 2
    assert "no Slurm answers here" in capsys.readouterr().err and not (tmp_path / "x.toml").exists()
