from __future__ import annotations

import re
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.launch.site import Container, Limits, Site, check_resources, default_site, load_site, site_files, site_table
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


def test_every_profile_says_in_its_first_line_when_to_copy_it() -> None:
    for path in site_files().values():
        assert path.read_text().startswith("# "), path


def test_there_is_a_profile_for_each_way_to_ask_for_gpus() -> None:
    assert (load_site("gpus-per-node").gpu_request, load_site("gres").gpu_request) == ("gpus-per-node", "gres")
    typed = load_site("typed-gres")
    assert typed.gpu_request == "gres" and typed.gpu_type
    example = load_site("example")
    assert example.container and example.container.binds and example.offline and example.env


def test_the_example_names_every_key() -> None:
    text = site_files()["example"].read_text()
    keys = {*Site.model_fields, *Limits.model_fields, *Container.model_fields} - {"name"}
    assert [key for key in sorted(keys) if not re.search(rf"^(# )?\[?{key}\b", text, re.MULTILINE)] == []


def test_own_profiles_win_over_those_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "btrm" / "sites"
    own.mkdir(parents=True)
    (own / "mine.toml").write_text('executor = "slurm"\n')
    (own / "slurm.toml").write_text('executor = "slurm"\npartition = "own"\n')
    assert load_site("mine").executor == "slurm" and load_site("slurm").partition == "own"
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "slurm.toml").write_text('executor = "slurm"\npartition = "team"\n')
    monkeypatch.setenv("BTRM_SITES_DIR", str(tmp_path / "team"))
    assert load_site("slurm").partition == "team"
    assert site_files()["slurm"] == tmp_path / "team" / "slurm.toml"


def test_the_default_is_slurm_where_there_is_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BTRM_SITE")
    assert default_site() == "local"
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    assert default_site() == "slurm"
    monkeypatch.setenv("BTRM_SITE", "gres")
    assert default_site() == "gres"


def test_a_profile_is_no_place_for_secrets(tmp_path: Path) -> None:
    path = tmp_path / "leaky.toml"
    path.write_text('executor = "slurm"\n[env]\nHF_TOKEN = "x"\n')
    with pytest.raises(ConfigError, match="HF_TOKEN: a site file is no place for secrets"):
        load_site(str(path))


def test_a_url_with_a_password_is_a_secret_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / "leaky.toml"
    path.write_text('executor = "slurm"\n[env]\nhttps_proxy = "http://me:hidden@proxy:3128"\nOPENAI_APIKEY = "x"\n')
    with pytest.raises(ConfigError, match="https_proxy, OPENAI_APIKEY: a site file") as error:
        load_site(str(path))
    assert "hidden" not in str(error.value)


def test_a_shadowed_profile_that_is_wrong_is_named_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTRM_SITES_DIR", str(tmp_path))
    (tmp_path / "gres.toml").write_text("partiton = 'x'\n")
    with pytest.raises(ConfigError, match=rf"{tmp_path}/gres\.toml: Site\.partiton: no such field; did you mean"):
        load_site("gres")


@pytest.mark.parametrize(("option", "instead"), [("job_name", "own"), ("array", "--shards"), ("M", "SLURM_CONF")])
def test_options_that_btrm_lives_by_are_not_for_slurm(option: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=instead):
        Site.build({"name": "x", "executor": "slurm", "slurm": {option: "1"}})
    assert Site(name="x", executor="slurm", slurm={"mail_type": "ALL"}).slurm == {"mail-type": "ALL"}


def test_the_table_shows_each_image_and_what_runs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    rows = {line.split()[0]: line for line in site_table().splitlines()}
    assert " btrm.sif  " in rows["example"] and " btrm.sqsh (pyxis)  " in rows["pyxis"] and " -  " in rows["slurm"]
    shipped = load_site("pyxis").container
    assert shipped is not None and shipped.runtime == "pyxis" and shipped.file == Path("/shared/images/btrm.sqsh")
