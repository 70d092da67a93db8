from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from btrm.cli import main as btrm
from btrm.container.cli import COMMANDS, main
from btrm.runs import StageError


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        btrm(["container", name, "--help"])
    assert ended.value.code == 0
    assert f"btrm container {name}" in capsys.readouterr().out


def test_the_commands_of_the_image_are_there() -> None:
    names = {command.name for command in COMMANDS}
    assert names >= {"build", "shell", "exec", "verify", "sign", "push", "pull", "lock", "wheels", "dockerfile"}


def test_help_loads_nothing_of_what_the_commands_do() -> None:
    code = (
        "import sys, btrm.container.cli as cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted(n for n in sys.modules if n.startswith(('btrm.container.', 'btrm.launch'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ["btrm.container.cli", "btrm.container.cli_build", "btrm.container.cli_image"]
    assert done.stdout.splitlines()[-1] == str(loaded)


def test_a_wrong_request_ends_with_2_and_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "none.sif")]) == 2
    assert main(["verify"]) == 2
    assert main(["sign", str(tmp_path / "none.sif")]) == 2
    assert main(["push", str(tmp_path / "none.sif"), "oras://h/n:v1"]) == 2
    assert main(["build", "--variant", "cu14"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and all(line.startswith("error: ") for line in lines)


def test_what_fails_ends_with_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: object, **__: object) -> None:
        raise StageError("apptainer says no")

    monkeypatch.setattr("btrm.container.registry.push", fails)
    assert main(["push", str(tmp_path / "x.sif"), "oras://h/n:v1"]) == 1


def test_without_apptainer_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.sif").write_bytes(b"x")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["verify", str(tmp_path / "x.sif")]) == 2
    assert "module load apptainer" in capsys.readouterr().err
