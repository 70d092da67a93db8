from __future__ import annotations

from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.launch.local import start_background
from btrm.launch.submission import Plan, Submission, new_submission


class StartedError(Exception):
    """The background run would have begun."""


@pytest.fixture
def submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submission:
    def start(**_: object) -> None:
        raise StartedError

    monkeypatch.setattr("submitit.LocalExecutor", start)
    root = tmp_path / "run"
    return new_submission(root, Plan(root=str(root), steps=(), env={}))


@pytest.mark.parametrize(("depth", "mode"), [(0, 0o775), (1, 0o777), (2, 0o770), (3, 0o757)])
def test_a_pickle_is_not_read_where_others_may_write(submission: Submission, depth: int, mode: int) -> None:
    submission.logs.mkdir()
    folder = (submission.logs, *submission.logs.parents)[depth]
    folder.chmod(mode)
    with pytest.raises(ConfigError, match=f"^{folder}: writable by group or others.*chmod go-w {folder} "):
        start_background(submission, 1)
    folder.chmod(0o755)
    with pytest.raises(StartedError):
        start_background(submission, 1)


def test_what_is_above_the_run_does_not_matter(submission: Submission, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StartedError):
        start_background(submission, 1)
