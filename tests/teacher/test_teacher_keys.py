"""Where the key comes from, what is wrong with one, and that it is shown nowhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from btrm.config import ConfigError
from btrm.teacher.config import TeacherConfig
from btrm.teacher.keys import VARIABLES, Key, key_problem, read_key

SECRET = "sk-abc-0123456789"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


def config_of(backend: str = "anthropic", **fields: Any) -> TeacherConfig:
    return TeacherConfig(backend=backend, model="some-model", **fields)


def key_file(tmp_path: Path, text: str | bytes, mode: int = 0o600) -> str:
    path = tmp_path / "key"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(("backend", "name"), [(api, name) for api, names in VARIABLES.items() for name in names])
def test_each_api_has_its_variable(monkeypatch: pytest.MonkeyPatch, backend: str, name: str) -> None:
    problem = key_problem(config_of(backend))
    assert problem is not None and name in problem and "api_key_file" in problem
    monkeypatch.setenv(name, f" {SECRET}\n")
    assert read_key(config_of(backend)).value == SECRET
    assert key_problem(config_of(backend)) is None
    monkeypatch.setenv(name, "")
    assert key_problem(config_of(backend)) == problem


def test_a_file_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "another")
    for text in (SECRET, f"{SECRET}\n", f"\n  {SECRET}\r\n\n"):
        assert read_key(config_of(api_key_file=key_file(tmp_path, text))).value == SECRET


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660, 0o602, 0o777])
def test_a_file_that_others_may_read_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, SECRET, mode)
    with pytest.raises(ConfigError, match=f"has mode {mode:04o}.*chmod 600 {path}") as caught:
        read_key(config_of(api_key_file=path))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_ones_own_is_taken(tmp_path: Path, mode: int) -> None:
    assert read_key(config_of(api_key_file=key_file(tmp_path, SECRET, mode))).value == SECRET


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        (f"{SECRET}\n{SECRET}\n", "has 2 lines"),
        (f"{SECRET} and more", "printable ASCII without blanks"),
        (f"{SECRET}ß", "printable ASCII without blanks"),
        (f"\ufeff{SECRET}", "printable ASCII without blanks"),
        (SECRET.encode("utf-16"), "printable ASCII without blanks"),
        (f"ANTHROPIC_API_KEY={SECRET}", "NAME=VALUE"),
        (SECRET * 1000, "longer than 4096 bytes"),
    ],
)
def test_what_no_key_is(tmp_path: Path, text: str | bytes, said: str) -> None:
    problem = key_problem(config_of(api_key_file=key_file(tmp_path, text)))
    assert problem is not None and said in problem and "api_key_file" in problem
    assert SECRET not in problem


def test_a_key_in_the_environment_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET} # mine")
    problem = key_problem(config_of("openai"))
    assert problem == "OPENAI_API_KEY: a key is printable ASCII without blanks; this has other characters"


def test_what_no_file_is(tmp_path: Path) -> None:
    assert "No such file" in str(key_problem(config_of(api_key_file=str(tmp_path / "none"))))
    assert "Is a directory" in str(key_problem(config_of(api_key_file=str(tmp_path))))
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "not a plain file" in str(key_problem(config_of(api_key_file=str(tmp_path / "pipe"))))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, SECRET)
    os.chown(path, 12345, -1)
    assert "belongs to user 12345, not to you (0)" in str(key_problem(config_of(api_key_file=path)))


@pytest.mark.parametrize(
    ("base_url", "needs"),
    [
        ("http://127.0.0.1:8000/v1", False),
        ("http://localhost:8000/v1", False),
        ("http://gpu-node-7:8000/v1", False),
        ("https://10.1.2.3/v1", False),
        ("http://[::1]:8000/v1", False),
        ("http://models.lab.example/v1", False),
        ("https://openrouter.ai/api/v1", True),
        ("https://api.openai.com/v1", True),
        (None, True),
    ],
)
def test_ones_own_server_may_go_without(base_url: str | None, needs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (key_problem(config_of("openai", base_url=base_url)) is not None) == needs
    assert key_problem(config_of("anthropic", base_url=base_url)) is not None
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert read_key(config_of("openai", base_url=base_url)).value == SECRET


def test_backends_of_this_machine_need_none() -> None:
    assert key_problem(TeacherConfig(backend="rule_random")) is None


def test_a_key_prints_as_stars() -> None:
    key = Key(SECRET)
    assert SECRET not in f"{key} {key!r} {[key]}"
    assert key.redact(f"Incorrect key {SECRET}.") == "Incorrect key ***."
    keyless = read_key(config_of("openai", base_url="http://localhost:1/v1"))
    assert keyless.redact("there is none") == "there is none"


@pytest.mark.parametrize(
    "url",
    ["http://me:pw1234@host:8000/v1", "https://pw1234@host/v1", "me:pw1234@host", "https://host/v1?key=pw1234",
     "https://host/v1?x=1&access_token=pw1234", "https://host/v1?API-Key=pw1234"],
)  # fmt: skip
def test_an_address_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"base_url: .*not repeated.*password.*--api-key-file") as caught:
        TeacherConfig.build({"base_url": url})
    assert "pw1234" not in str(caught.value)


def test_an_address_without_a_secret_is_taken() -> None:
    for url in ("http://host:8000/v1", "https://host/a@b/v1?model=x&max_tokens=7"):
        assert TeacherConfig.build({"base_url": url}).base_url == url
