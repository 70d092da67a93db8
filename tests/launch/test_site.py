from __future__ import annotations

from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.launch.site import check_resources, load_site, site_files
from btrm.runs import Resources


def test_every_profile_that_ships_is_valid() -> None:
    assert "local" in site_files()
    for name in site_files():
        assert load_site(name).name == name


def test_a_users_own_profile_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('executor = "local"\n[env]\nHF_HOME = "/scratch"\n')
    site = load_site(str(path))
    assert (site.name, site.executor, site.env) == ("mine", "local", {"HF_HOME": "/scratch"})
    path.write_text('executr = "local"\n')
    with pytest.raises(ConfigError, match=r"mine\.toml: Site\.executr: no such field; did you mean executor\?"):
        load_site(str(path))
    path.write_text("executor = \n")
    with pytest.raises(ConfigError, match=r"mine\.toml: not TOML"):
        load_site(str(path))


def test_an_unknown_site_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean local"):
        load_site("locl")


def test_one_machine_says_how_many_gpus_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert check_resources(Resources(gpus=2)) == []
    problems = check_resources(Resources(nodes=2, gpus=8))
    assert "--nodes 2" in problems[0] and "shows 2 GPUs" in problems[1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "shows 0 GPUs" in check_resources(Resources(gpus=1))[0]
