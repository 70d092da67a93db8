from __future__ import annotations

import pytest

from btrm.launch.secrecy import is_secret
from btrm.launch.slurm import job_environ

SECRET = [
    "HF_TOKEN",
    "GITHUB_TOKEN",
    "AZURE_OPENAI_API_KEY_2",
    "OPENAI_APIKEY",
    "ANTHROPIC_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "GITHUB_PAT",
    "MYSQL_PWD",
    "PGPASSWORD",
    "DB_PASS",
    "DB_PASSWD",
    "KEY2",
    "aws_secret",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "REGISTRY_CRED",
    "WANDB_API_KEY",
    "DB_PASSWORD_1",
]
PLAIN = [
    "PATH",
    "KEYBOARD",
    "MONKEY",
    "PWD",
    "OLDPWD",
    "PYTHONPATH",
    "TOKENIZERS_PARALLELISM",
    "TOKEN_LIMIT",
    "HF_TOKEN_PATH",
    "MAX_TOKENS",
    "COMPASS",
    "PASSAGE",
    "SECRETARY",
    "GIT_ASKPASS",
    "XDG_CACHE_HOME",
    "PATTERN",
    "HF_HOME",
    "CUDA_VISIBLE_DEVICES",
]


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", PLAIN)
def test_names_of_none(name: str) -> None:
    assert not is_secret(name)


def test_a_url_with_a_password_is_one() -> None:
    assert is_secret("DATABASE", "postgres://me:x@db/runs") and is_secret("http_proxy", "http://me:p%40ss@proxy:3128")
    assert not any(
        is_secret("X", url) for url in ("http://proxy:3128", "ssh://me@host:22/p", "a:b@c", "http://h/a:b@c")
    )
    assert job_environ({"http_proxy": "http://me:x@proxy:1", "HF_HOME": "/x"}) == {"HF_HOME": "/x"}
