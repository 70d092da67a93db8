from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.leases import live_owner
from btrm.locks import exclusive


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_locks_leases_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    refuse_locks(monkeypatch, number)
    with exclusive(tmp_path):
        pass
    monkeypatch.setenv("BTRM_OWNER", "job 7")
    with exclusive(tmp_path):
        assert live_owner(tmp_path) == "job 7"
        monkeypatch.delenv("BTRM_OWNER")
        with pytest.raises(ConfigError, match="job 7 is working here"), exclusive(tmp_path):
            pass


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), exclusive(tmp_path):
        pass
