"""The summary in W&B, with the real package kept offline."""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from components import missing

from btrm.report.columns import COLUMNS
from btrm.report.rows import OPTIMISTIC
from btrm.report.wandb_log import Logged, log_summary, mode

KEY, TOKEN = "k3y" * 13 + "c", "hf_canary"


@pytest.fixture
def need_wandb() -> None:
    if find_spec("wandb") is None:
        missing("wandb", "wandb is not installed")


@pytest.fixture
def what(tmp_path: Path) -> Logged:
    """A run's summary: two rows and its files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder = tmp_path / "hh study" / "summarize"
    folder.mkdir(parents=True)
    figure = Figure(figsize=(1, 1))
    FigureCanvasAgg(figure)
    figure.savefig(folder / "learning_curve.png")
    (folder / "summary.csv").write_text("checkpoint,accuracy\n")
    (tmp_path / "manifest.json").write_text("{}")
    told: dict[str, Any] = dict.fromkeys(column.name for column in COLUMNS)
    rows = [
        {**told, "checkpoint": f"checkpoint-{s}", "dataset": "test", "step": s, "accuracy": s / 100} for s in (50, 90)
    ]
    rows[0]["ece"] = float("nan")
    rows[1]["selected"] = OPTIMISTIC
    return Logged("hh study", rows, folder, "checkpoint-90 is it", tmp_path / "manifest.json")


def test_nothing_is_logged_where_nobody_asks(what: Logged) -> None:
    assert not log_summary(what)
    assert not (what.files / "wandb").exists()


def test_it_is_usable_without_wandb(
    what: Logged, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "judges")
    monkeypatch.setattr("btrm.report.wandb_log.importlib.util.find_spec", lambda _: None)
    assert not log_summary(what)
    assert "pip install 'btrm[wandb]'" in caplog.text


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"BTRM_OWNER": "job 7"}, "offline"),
        ({"SLURM_JOB_ID": "7"}, "offline"),
        ({"SLURM_JOB_ID": "7", "WANDB_MODE": "online"}, "online"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_a_clusters_job_stays_offline_unless_told(environ: dict[str, str], expected: str | None) -> None:
    assert mode(environ) == expected


@pytest.mark.usefixtures("need_wandb")
def test_a_failure_is_a_warning(
    what: Logged, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("no such entity")

    monkeypatch.setenv("WANDB_PROJECT", "judges")
    monkeypatch.setattr("wandb.init", refuse)
    assert not log_summary(what)
    assert "not logged to W&B: no such entity" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("need_wandb")
def test_a_job_keeps_table_picture_and_artifact_for_a_later_sync(
    what: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "btrm")
    secrets = {"WANDB_API_KEY": KEY, "HF_TOKEN": TOKEN}
    asked = {"WANDB_PROJECT": "judges", "BTRM_OWNER": "job 7", "HOME": str(tmp_path / "home")}
    for name, value in (secrets | asked).items():
        monkeypatch.setenv(name, value)
    assert log_summary(what)
    (kept,) = (what.files / "wandb").glob("offline-run-*")
    assert f"wandb sync {kept}" in caplog.text
    (table,) = kept.rglob("*.table.json")
    told = json.loads(table.read_text())
    assert told["columns"] == [column.name for column in COLUMNS]
    assert [row[told["columns"].index("checkpoint")] for row in told["data"]] == ["checkpoint-50", "checkpoint-90"]
    assert told["data"][0][told["columns"].index("ece")] is None
    assert len(list(kept.rglob("learning_curve*.png"))) == 1
    (log,) = kept.glob("*.wandb")
    for name in (
        b"hh study",
        b"hh-study-summary",
        b"summary.csv",
        b"judgements.manifest.json",
        b"checkpoint-90 is it",
        b"test/optimistic",
    ):
        assert name in log.read_bytes()
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert KEY.encode() not in file.read_bytes() and TOKEN.encode() not in file.read_bytes(), file
