from __future__ import annotations

from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.environment import load_environment
from btrm.launch.local import environment


def test_dotenv_fills_in_and_the_shell_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HF_HOME=/from/dotenv\nWANDB_PROJECT=x\n")
    environ = {"HF_HOME": "/from/shell", "TRANSFORMERS_CACHE": "/old"}
    notes = load_environment(environ, tmp_path / ".env")
    assert environ == {"HF_HOME": "/from/shell", "WANDB_PROJECT": "x"}
    assert "TRANSFORMERS_CACHE" in notes[0]


@pytest.mark.parametrize("where", ["shell", "dotenv"])
def test_settings_in_the_environment_are_refused_by_name(tmp_path: Path, where: str) -> None:
    environ: dict[str, str] = {}
    if where == "shell":
        environ["BT_DELTA_TEMP"] = "5"
    else:
        (tmp_path / ".env").write_text("BT_DELTA_TEMP=5\n")
    with pytest.raises(ConfigError, match=r"BT_DELTA_TEMP.*--preset"):
        load_environment(environ, tmp_path / ".env")


def test_a_sites_environment_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("HF_HOME", "/mine")
    monkeypatch.delenv("BTRM_TEST_X", raising=False)
    with environment({"HF_HOME": "/site", "BTRM_TEST_X": "1"}):
        assert (os.environ["HF_HOME"], os.environ["BTRM_TEST_X"]) == ("/site", "1")
    assert os.environ["HF_HOME"] == "/mine" and "BTRM_TEST_X" not in os.environ


def test_a_file_with_keys_that_others_may_read_is_told(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("OPENAI_API_KEY=sk-1\nHF_HOME=/x\n")
    dotenv.chmod(0o644)
    (note,) = load_environment({}, dotenv)
    assert note == f"{dotenv} holds OPENAI_API_KEY, and others may read it: chmod 600 {dotenv}"
    dotenv.chmod(0o600)
    assert load_environment({}, dotenv) == []
