from __future__ import annotations

from pathlib import Path

from btrm.launch.failures import FAILURES
from btrm.launch.last_words import refusal
from btrm.launch.refused import note_refused
from btrm.launch.submission import Attempt, ElementState, Plan, SentJob, Submission, new_submission

CHANGED = "btrm: image_changed: /x.sif is not there, or is not what was submitted with (sha256 5)\n"
UNFIT = "btrm: image_unfit: the image has pydantic 1.10, btrm needs pydantic>=2.7 (python)\n"
NO_CODE = "/usr/bin/python: Error while finding module specification (ModuleNotFoundError: No module named 'btrm')\n"
SRUN = "srun: error: n1: task 0: Exited with exit code 78\n"
BEGAN = "12:00:00 teacher.3 on n1\n12:00:01 5 rows\n"


def submission(tmp_path: Path, *jobs: SentJob) -> Submission:
    made = new_submission(tmp_path, Plan(root=str(tmp_path), steps=(), env={}))
    made.logs.mkdir()
    for job in jobs:
        made.record(job)
    return made


ARRAY = SentJob(key="teacher.0", step="teacher", kind="array", job_id="7", first=10, count=3, array="0-2")


def attempt(job: str, **more: object) -> Attempt:
    values = {"number": 1, "restarts": 0, "host": "n1", "pid": 5, "gpus": 0, "started": 1.0, "seen": 2.0}
    return Attempt.build({**values, "job": job, **more})


def test_the_last_line_counts(tmp_path: Path) -> None:
    log = tmp_path / "7_0_log.out"
    said = {CHANGED: "image_changed", BEGAN + CHANGED: "image_changed", UNFIT + SRUN: "image_unfit"}
    said |= {
        NO_CODE + SRUN: "image_unfit",
        CHANGED + BEGAN: None,
        BEGAN: None,
        "": None,
        "ValueError: x\n" + SRUN: None,
    }
    for text, cause in said.items():
        log.write_text(text)
        told = refusal(log)
        assert (told and told[0]) == cause, text
        assert told is None or FAILURES[told[0]].action == "stop"
    assert refusal(tmp_path / "none") is None


def test_an_element_that_was_refused_gets_an_attempt_that_says_so(tmp_path: Path) -> None:
    made = submission(tmp_path, ARRAY)
    running = attempt("7_1", done=6)
    made.write_state(ElementState(step="teacher", element=11, attempts=(running,)))
    made.write_state(ElementState(step="teacher", element=12, attempts=(attempt("7_2", outcome="done"),)))
    (made.logs / "7_0_0_log.out").write_text(CHANGED)
    (made.logs / "7_1_0_log.out").write_text(BEGAN + "slurmstepd: error: CANCELLED DUE TO PREEMPTION\n" + CHANGED)
    (made.logs / "7_2_0_log.out").write_text(BEGAN)
    for _ in range(2):  # the second time it is known
        note_refused(made)
        (first,) = made.read_state("teacher", 10).attempts
        assert (first.outcome, first.cause, first.job) == ("failed", "image_changed", "7_0")
        assert first.reason.startswith("/x.sif is not there")
        lost, refused = made.read_state("teacher", 11).attempts
        assert (lost.outcome, refused.cause, refused.restarts) == ("lost", "image_changed", 1)
        assert refused.at_start == refused.done == 6
        assert len(made.read_state("teacher", 12).attempts) == 1


def test_a_job_that_was_sent_again_is_what_counts(tmp_path: Path) -> None:
    made = submission(tmp_path, ARRAY, ARRAY.model_copy(update={"job_id": "9"}))
    (made.logs / "7_0_0_log.out").write_text(CHANGED)
    note_refused(made)
    assert made.read_state("teacher", 10).attempts == ()


def test_a_commit_has_a_state_of_its_own(tmp_path: Path) -> None:
    commit = SentJob(key="teacher.commit", step="teacher", kind="commit", job_id="8")
    made = submission(tmp_path, commit, SentJob(key="control", step="teacher", kind="control", job_id="9"))
    for job in (8, 9):
        (made.logs / f"{job}_0_log.out").write_text(UNFIT)
    note_refused(made)
    assert [(s.step, s.element) for s in made.states()] == [("teacher.commit", 0)]
