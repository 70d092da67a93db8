from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from btrm.launch.last_words import last_words
from btrm.onebox.box import OneBox

OOM = "slurmstepd: error: Detected 1 oom_kill event in StepId=8.0. Some of the step tasks have been OOM Killed.\n"
PREEMPTED = "slurmstepd: error: *** JOB 8 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***\n"
REQUEUED = (  # by the job's own script, after its task was killed
    "srun: error: n1: task 0: Killed\nsrun: Force Terminated StepId=8.0\n"
    "slurmstepd-n1: error: *** JOB 8 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO JOB REQUEUE ***\nTerminated\n"
)
BEGINS = "12:00:00 judge.3 on n1\n"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (BEGINS + "12:00:01 5 rows\n" + OOM, "out_of_memory"),
        (BEGINS + OOM + BEGINS, "out_of_memory"),  # the next attempt has just begun
        (BEGINS + OOM + BEGINS + "12:00:01 5 rows\n", None),  # that was the attempt before the last
        (BEGINS + PREEMPTED + BEGINS.replace("n1", "n2"), "preempted"),
        (BEGINS + REQUEUED + BEGINS, None),
        (BEGINS + "x" * 100_000 + "\n" + OOM, "out_of_memory"),
        (BEGINS + "ValueError: the stage's own\n", None),
        (BEGINS, None),
        ("", None),
    ],
)
def test_the_last_attempt_with_a_word_counts(tmp_path: Path, text: str, cause: str | None) -> None:
    log = tmp_path / "8_3_0_log.out"
    log.write_text(text)
    assert last_words(log, "judge.3 on ") == cause


def test_no_log_no_word(tmp_path: Path) -> None:
    assert last_words(tmp_path / "none", "judge.3 on ") is None


@pytest.mark.slow
def test_what_slurm_writes_when_it_preempts(slurm: Callable[..., OneBox], tmp_path: Path) -> None:
    box = slurm(nodes=1, cpus=2)
    log = tmp_path / "log"
    task = f"srun --output={log} --open-mode=append sh -c 'echo 12:00:00 judge.3 on n1; sleep 300'"
    words = ("sbatch", "--parsable", "--requeue", "--open-mode=append", f"--output={log}", "-c2")
    box.run(*words, "-p", "low", f"--wrap={task}")
    box.wait_until("it runs", lambda: log.exists() and "judge.3" in log.read_text())
    box.run("sbatch", "-c2", "-p", "high", "--output=/dev/null", "--wrap=sleep 300")
    box.wait_until("it was preempted", lambda: last_words(log, "judge.3 on ") == "preempted")
