"""What a changed request means for a trained directory, and what a failed attempt leaves; the trainer is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer_support import TINY, stage_run, write_rows, write_sft

from btrm.checkpoints import step_of, write_mark
from btrm.config import ConfigError
from btrm.leases import Fenced
from btrm.publishing import write_json
from btrm.runs import Resources, RunManifest, RunPaths, StageError, StageRun
from btrm.stage_table import get_stage
from btrm.stages import execute, prepare
from btrm.stopping import Stopped
from btrm.train import options
from btrm.train.attempt import FAILURE_LOG, leaving_nothing
from btrm.train.launch import Job, JobError, run_job
from btrm.train.options import read_order
from btrm.train.outputs import publish

GRPO: dict[str, Any] = {
    **TINY,
    "num_generations": 2,
    "generation_batch_size": 8,
    "per_device_batch_size": 4,
    "max_steps": 4,
    "save_steps": 2,
}
SFT: dict[str, Any] = {**TINY, "per_device_batch_size": 4, "max_steps": 4, "save_steps": 2}
Stage = Callable[..., RunManifest]


class Trainer:
    """Leaves checkpoints as a trainer would: one every save_steps, one at the end; then fails where it is told to."""

    def __init__(self) -> None:
        self.fails = False
        self.stops_at: int | None = None
        self.calls: list[list[str]] = []

    def __call__(self, job: Job, resources: Resources) -> None:  # noqa: ARG002
        argv = read_order(job.request).argv
        self.calls.append(argv)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_text("CUDA out of memory\n")
        start = step_of(Path(_of(argv, "resume_from_checkpoint", "x-0")))
        most, every = int(_of(argv, "max_steps", "4")), int(_of(argv, "save_steps"))
        folder = Path(_of(argv, "output_dir"))
        folder.mkdir(parents=True)
        for step in range(start + 1, (self.stops_at or most) + 1):
            with (folder / "logging.jsonl").open("a") as log:
                log.write(json.dumps({"loss": 1.0, "global_step/max_steps": f"{step}/{most}"}) + "\n")
            if step % every == 0 or step == most:
                checkpoint = folder / f"checkpoint-{step}"
                write_json(checkpoint / "trainer_state.json", {"epoch": step / 2})
                write_mark(checkpoint, "base", step)
                publish(checkpoint, job.directory / "checkpoints")
        if self.fails or self.stops_at is not None:
            raise JobError(job.module, 1, job.log)


def _of(argv: list[str], name: str, default: str = "") -> str:
    return argv[argv.index(f"--{name}") + 1] if f"--{name}" in argv else default


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Put the stand-in where the real trainer is started."""
    stand_in = Trainer()
    monkeypatch.setattr(options, "run_job", stand_in)
    return stand_in


@pytest.fixture
def run(tmp_path: Path) -> Stage:
    """Prepare and execute a trainer stage with given resources."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    inputs = {
        "grpo": {"rows": str(write_rows(tmp_path / "rows.jsonl", 6))},
        "sft": {"data": str(write_sft(tmp_path / "sft.jsonl", 8))},
    }

    def execute_stage(stage: str, gpus: int = 0, **values: Any) -> RunManifest:
        config = get_stage(stage).config.build({"model": str(model), **inputs[stage], **values})
        prepared = prepare(stage, config, Resources(gpus=gpus), tmp_path / "run")
        prepared.directory.mkdir(parents=True, exist_ok=True)
        write_json(prepared.directory / "stage.json", prepared.request.model_dump(mode="json"))
        return execute(prepared.directory / "stage.json")

    return execute_stage


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize(("stage", "values"), [("grpo", GRPO), ("sft", SFT)])
def test_another_number_of_processes_does_not_go_on(
    stage: str, values: dict[str, Any], trainer: Trainer, run: Stage
) -> None:
    trainer.stops_at = 2
    with pytest.raises(JobError):
        run(stage, gpus=2, **values)
    trainer.stops_at = None
    with pytest.raises(ConfigError, match=r"trained to step 2 by 2 process\(es\), now 1"):
        run(stage, gpus=1, **values)
    assert run(stage, gpus=2, **values).outputs
    assert _of(trainer.calls[-1], "resume_from_checkpoint").endswith("checkpoint-2")
    with pytest.raises(ConfigError, match=r"trained to step 4 by 2 process\(es\), now 1"):
        run(stage, gpus=1, **{**values, "max_steps": 6})


def test_another_form_of_the_optimizers_state_does_not_go_on(trainer: Trainer, run: Stage) -> None:
    trainer.stops_at = 2
    with pytest.raises(JobError):
        run("grpo", gpus=2, **GRPO, deepspeed="zero2")
    with pytest.raises(ConfigError, match=r"deepspeed=zero3: .* is trained to step 2 with zero2"):
        run("grpo", gpus=2, **GRPO, deepspeed="zero3")
    trainer.stops_at = None
    assert run("grpo", gpus=2, **GRPO, deepspeed="zero2").outputs


@pytest.mark.parametrize(("stage", "values"), [("grpo", GRPO), ("sft", SFT)])
def test_fewer_steps_than_trained_are_refused(stage: str, values: dict[str, Any], trainer: Trainer, run: Stage) -> None:
    run(stage, **values)
    with pytest.raises(ConfigError, match="is already trained to 4; max_steps 2 is less"):
        run(stage, **{**values, "max_steps": 2})
    assert len(trainer.calls) == 1
    assert run(stage, **values).results, "and nothing is lost"


def test_fewer_epochs_than_trained_are_refused(trainer: Trainer, run: Stage) -> None:
    run("sft", **{**SFT, "max_steps": 0, "epochs": 2})
    with pytest.raises(ConfigError, match="is already trained to 2; epochs 1 is less"):
        run("sft", **{**SFT, "max_steps": 0, "epochs": 1})
    run("sft", **{**SFT, "max_steps": 0, "epochs": 3})
    assert len(trainer.calls) == 2


def test_save_steps_are_of_the_steps_to_come(trainer: Trainer, run: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "grpo" / "checkpoints"
    first = run("grpo", **GRPO)
    again = run("grpo", **{**GRPO, "save_steps": 1})
    assert again == first and len(trainer.calls) == 1, "a finished run stays what it is"
    further = run("grpo", **{**GRPO, "max_steps": 6, "save_steps": 1})
    assert not list(folder.glob(".attempt-*"))
    assert names(folder) == {"logging.jsonl", *(f"checkpoint-{n}" for n in (2, 4, 5, 6))}
    assert {path.split("/")[1] for path in further.outputs} == names(folder)


@pytest.mark.parametrize(("stage", "values"), [("grpo", GRPO), ("sft", SFT)])
def test_an_attempt_that_fails_at_once_can_be_tried_with_other_settings(
    stage: str, values: dict[str, Any], trainer: Trainer, run: Stage, tmp_path: Path
) -> None:
    trainer.fails, trainer.stops_at = True, 1
    directory = tmp_path / "run" / stage
    with pytest.raises(StageError, match="CUDA out of memory") as error:
        run(stage, **values)
    assert names(directory) == {"stage.json"}
    assert str(directory / FAILURE_LOG) in str(error.value)
    assert (directory / FAILURE_LOG).read_text() == "CUDA out of memory\n"
    trainer.fails, trainer.stops_at = False, None
    assert run(stage, **{**values, "learning_rate": 1e-6}).config["learning_rate"] == 1e-6


def test_a_first_failure_on_two_nodes_keeps_both_logs_and_what_was_said(tmp_path: Path) -> None:
    run = stage_run(tmp_path, "grpo")
    logs = [run.dir / "logs" / name for name in ("trainer.log", "trainer-node1.log")]
    logs[0].parent.mkdir()
    for log, text in zip(logs, ("peer lost\n", "CUDA out of memory\n"), strict=True):
        log.write_text(text)
    with pytest.raises(JobError) as error, leaving_nothing(run):
        raise JobError("btrm.train.grpo", 1, logs[0], [logs[1]])
    assert "peer lost" in str(error.value) and "CUDA out of memory" in str(error.value)
    assert str(logs[1]) not in str(error.value) and error.value.code == 1
    kept = (run.dir / FAILURE_LOG).read_text()
    assert kept == "== trainer-node1.log\nCUDA out of memory\n== trainer.log\npeer lost\n"


def test_an_attempt_that_was_asked_to_stop_or_replaced_keeps_everything(tmp_path: Path) -> None:
    run = stage_run(tmp_path, "grpo")
    (run.dir / "logs").mkdir()
    for end in (Stopped("preempted"), Fenced("a newer one")):
        with pytest.raises(type(end)), leaving_nothing(run):
            raise end
    assert (run.dir / "logs").exists()


def test_a_failure_after_a_checkpoint_keeps_everything(trainer: Trainer, run: Stage, tmp_path: Path) -> None:
    trainer.stops_at = 3
    with pytest.raises(JobError, match=r"logs/trainer\.log ends in"):
        run("grpo", **GRPO)
    assert names(tmp_path / "run" / "grpo") == {"stage.json", "trainer.json", "logs", "checkpoints"}


def test_too_few_rows_leave_nothing(trainer: Trainer, run: Stage, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are 6"):
        run("grpo", **{**GRPO, "generation_batch_size": 64})
    assert names(tmp_path / "run" / "grpo") == {"stage.json"} and not trainer.calls


@pytest.mark.usefixtures("trainer")
def test_a_failed_merge_leaves_nothing(monkeypatch: pytest.MonkeyPatch, run: Stage, tmp_path: Path) -> None:
    from btrm.train import merge

    run("sft", **SFT)

    def fail(job: Job, resources: Resources) -> None:  # noqa: ARG001
        job.log.parent.mkdir(parents=True)
        job.log.write_text("no such template")
        raise JobError(job.module, 1, job.log)

    monkeypatch.setattr(merge, "run_job", fail)
    directory = tmp_path / "run" / "merge"
    directory.mkdir()
    config = merge.MergeConfig(model=str(tmp_path / "model"), adapter="@sft/adapter")
    view = StageRun(RunPaths(tmp_path / "run"), "merge", directory, Resources(), directory / "stage.json")
    with pytest.raises(JobError, match=r"\.last_failure\.log ends in:\nno such template"):
        merge.run_merge(config, view)
    assert names(directory) == set()


def run_pairs(root: Path, prompt: str) -> None:
    """Make rows of the toy task with a prompt."""
    config = get_stage("pairs").config.build(
        {"dataset": "toy", "prompt": prompt, "splits": ["train"], "n_pairs": {"train": 6}}
    )
    prepared = prepare("pairs", config, Resources(), root)
    prepared.directory.mkdir(parents=True)
    write_json(prepared.directory / "stage.json", prepared.request.model_dump(mode="json"))
    execute(prepared.directory / "stage.json")


@pytest.mark.parametrize(("prompt", "parser"), [("toy_score100", "score5_last"), ("score100_v1", "score100_last")])
def test_a_reward_reads_answers_as_the_rows_ask_for_them(
    prompt: str, parser: str, trainer: Trainer, run: Stage, tmp_path: Path
) -> None:
    run_pairs(tmp_path / "run", prompt)
    values = {**GRPO, "rows": "@pairs/train.rows.jsonl"}
    with pytest.raises(
        ConfigError, match=rf"reward\.parser {parser}: .* written for prompt {prompt}, read by score100"
    ):
        run("grpo", **values, reward={"parser": parser})
    assert not trainer.calls
    right = {"toy_score100": "score100_last", "score100_v1": "score100_first"}[prompt]
    assert run("grpo", **values, reward={"parser": right}).results["steps"] == 4


def test_a_process_that_ends_badly_is_told_with_its_log(tmp_path: Path) -> None:
    job = Job("btrm.no_such_trainer", tmp_path / "trainer.json", 1, True, tmp_path / "logs" / "trainer.log", None)
    with pytest.raises(JobError, match=r"ended with 1; .*logs/trainer\.log ends in:\n.*No module named btrm\.no_such"):
        run_job(job, Resources())
