from __future__ import annotations

from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.onebox import conf
from btrm.onebox.box import OneBox
from btrm.onebox.cli import main
from btrm.onebox.conf import Settings, lay_out, load_settings, require_packages


def test_all_wrong_settings_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Settings(tmp_path / ("x" * 60), nodes=0, gpus=-1, max_time="soon")
    assert [word in str(error.value) for word in ("nodes 0", "gpus -1", "max_time 'soon'", "at most 60 bytes")] == [
        True
    ] * 4


@pytest.mark.usefixtures("need_slurm")
def test_the_files_say_what_was_asked(short_path: Path) -> None:
    settings = Settings(short_path / "c", nodes=2, gpus=4, max_array=50, grace_s=7, extra="Licenses=a:1")
    lay_out(settings)
    text = settings.conf.read_text()
    for line in ("MaxArraySize=50", "SlurmctldParameters=preempt_send_user_signal", "Licenses=a:1"):
        assert line in text.splitlines()
    assert "NodeAddr=127.0.0.2" in text and "Gres=gpu:h200:4" in text and "$" not in text
    assert len(list((settings.root / "gpus").iterdir())) == 4
    assert Settings(settings.root, **load_settings(settings.root)) == settings


def test_a_folder_that_is_no_cluster_is_left_alone(short_path: Path) -> None:
    (short_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something else than a cluster"):
        lay_out(Settings(short_path))
    assert (short_path / "thesis.txt").exists()
    with pytest.raises(ConfigError, match="no cluster here; btrm cluster up makes one"):
        OneBox.open(short_path)


def test_missing_packages_come_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], short_path: Path
) -> None:
    monkeypatch.setattr(conf, "find", lambda command: None if command in {"munged", "slurmdbd"} else f"/bin/{command}")
    require_packages_message = r"not installed: munge, slurmdbd; .*: apt-get install .* munge slurmdbd"
    with pytest.raises(ConfigError, match=require_packages_message):
        require_packages(accounting=True)
    assert main(["up", "--dir", str(short_path / "c")]) == 2
    assert "not installed: munge;" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status"], "no cluster here"),
        (["exec"], "which command?"),
        (["fail", "task-kill"], "usage: btrm cluster fail task-kill JOB"),
        (["fail", "dbd-kill", "n1"], "usage: btrm cluster fail dbd-kill\n"),
    ],
)
def test_a_wrong_request_is_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(words) == 2
    assert message in capsys.readouterr().err
