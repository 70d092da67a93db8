"""Jobs that leave a trace of every one of their writers."""

from __future__ import annotations

from btrm.onebox.box import ClusterError, OneBox
from btrm.onebox.processes import Process


def submit(box: OneBox, line: str, *options: str) -> str:
    """Submit a line of bash; what it prints is in `output`, over all of its starts."""
    fixed = ["--parsable", "--requeue", "--open-mode=append", f"--output={box.root}/%A_%a.out"]
    return box.run("sbatch", *fixed, *options, "--wrap", line)


def submit_writer(box: OneBox, *options: str) -> str:
    """Submit a job whose every start appends its own process number ten times a second, for ten minutes."""
    job = submit(
        box, f"for i in $(seq 6000); do echo $$ >> {box.root}/$SLURM_JOB_ID.writers; sleep 0.1; done", *options
    )
    wait_for(box, job, "RUNNING")
    box.wait_until("a first line", lambda: (box.root / f"{job}.writers").exists())
    return job


def writers(box: OneBox, job: str) -> set[str]:
    """Return the numbers of the processes that have written and live: they go on, however slow this machine is."""
    seen = set((box.root / f"{job}.writers").read_text().split())
    return {number for number in seen if Process.of(int(number)) is not None}


def state(box: OneBox, job: str) -> str:
    return box.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")


def wait_for(box: OneBox, job: str, *states: str, timeout_s: float = 120) -> None:
    try:
        box.wait_until(f"job {job} {states}", lambda: state(box, job) in states, timeout_s)
    except ClusterError:
        raise AssertionError(f"job {job} is not {states}:\n{box.run('scontrol', 'show', 'job', job)}") from None


def node_of(box: OneBox, job: str) -> str:
    return box.run("squeue", "-h", "-j", job, "-o", "%N")


def output(box: OneBox, job: str) -> str:
    """Return what a job printed; `job` is NUMBER or ARRAY_ELEMENT."""
    return (box.root / f"{job if '_' in job else job + '_4294967294'}.out").read_text()
