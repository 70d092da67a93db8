"""Handing jobs to Slurm: one sbatch call a job, each on record before the next, and no secret along the way."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from btrm.config import ConfigError
from btrm.launch.jobs import Job, controller, window
from btrm.launch.queue import forget
from btrm.launch.sbatch import Request, job_name, script
from btrm.launch.secrecy import is_secret
from btrm.launch.site import Site
from btrm.launch.submission import PATROL, SentJob, Submission
from btrm.runs import CODE, IMAGE, StageError

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 60
_TRIES, _PAUSE_S = 20, 10.0
# slurmctld is restarted or overrun: nothing is wrong with the job.
_BUSY = re.compile(r"[Uu]nable to contact|[Tt]imed out|[Tt]emporarily un|refused|Zero Bytes were transmitted")


class RefusedError(StageError):
    """sbatch refused a job for good; the message has Slurm's own words."""


class NoRoomError(ConfigError):
    """The queue has no room for another job of this user now."""


def job_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what sbatch may pass on: no secrets (Slurm keeps a job's environment on disk), nothing of another job.

    SBATCH_* would silently win over the script that --dry-run shows.
    """
    dropped = ("SLURM_", "SBATCH_", "SRUN_", "BTRM_OWNER", "BTRM_LEASES", IMAGE, CODE)  # and IMAGE_SHA256
    kept = ("SLURM_CONF",)
    return {n: v for n, v in environ.items() if n in kept or not (n.startswith(dropped) or is_secret(n, v))}


def live_jobs(submission: Submission, tries: int = _TRIES) -> dict[str, str]:
    """Return {job name: id} of a submission's jobs that Slurm still has, this process's own job left out.

    Raises StageError where slurmctld does not answer, some minutes long.
    """
    command = ["squeue", "--me", "--noheader", "--format=%F %t %j"]  # %F: an array's own id, of all its elements
    complaint = ""
    for left in reversed(range(tries)):
        done = ask(command)
        if done.returncode == 0:
            rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
            mine, own = f"btrm-{submission.name}-", os.environ.get("SLURM_JOB_ID")
            # A controller that has begun may have looked already: only one that waits is going to.
            begun = [i for i, state, n in rows if n == f"{mine}control" and state != "PD"]
            live = [(n, i) for i, _, n in rows if n.startswith(mine) and i not in {own, *begun}]
            return {n: i for n, i in live if n != f"{mine}{PATROL}"}  # which only looks after the others
        complaint = done.stderr.strip()
        time.sleep(_PAUSE_S if left else 0)
    raise StageError(f"squeue does not answer: {complaint}")


def ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm; one that hangs has failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, env=job_environ(os.environ), timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise ConfigError(f"{command[0]} is not on PATH: this is no Slurm machine; --site local runs here") from None
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} timed out after {_TIMEOUT_S} s")


def send(
    jobs: Sequence[Job], request: Request, room: int | None, known: Mapping[str, str] | None = None
) -> list[SentJob]:
    """Send what fits into the queue and, where the site's nodes may submit, a controller after all of it.

    `known` are the ids of jobs sent before, by key, that these may have to wait for.
    Raises NoRoomError where nothing fits, StageError with Slurm's own words where sbatch refuses; what was sent until
    then is on record.
    """
    request.submission.logs.mkdir(parents=True, exist_ok=True)
    (request.submission.directory / "requeue").mkdir(exist_ok=True)
    ids = dict(known or {})
    sent = [_send(job, request, ids) for job in fitting(jobs, request.site, room)]
    if request.site.submit_from_nodes:
        sent.append(send_control(request, [*(known or {}).values(), *(job.job_id for job in sent)]))
    forget()
    return sent


def fitting(jobs: Sequence[Job], site: Site, room: int | None) -> list[Job]:
    """Return the jobs that fit into the queue beside a controller; raise NoRoomError where that is no help."""
    controlled = site.submit_from_nodes
    chosen = window(jobs, None if room is None else room - controlled)
    whole = sum(job.count for job in jobs)
    if not chosen or (not controlled and sum(job.count for job in chosen) < whole):
        raise NoRoomError(
            f"the queue has room for {room} of your jobs and the plan has {whole}. "
            "Wait, take fewer and larger elements (--shards), or a site whose nodes may submit (submit_from_nodes)"
        )
    return chosen


def send_control(request: Request, after: Sequence[str]) -> SentJob:
    """Send the job that looks, when all others have ended, whether anything is left to do."""
    waits = f"afterany:{':'.join(after)}" if after else ""
    return send_one(controller(request.plan.steps), replace(request, dependencies=waits, begin_s=0, exclude=""))


def _send(job: Job, request: Request, ids: dict[str, str]) -> SentJob:
    sent = send_one(job, replace(request, dependencies=dependencies(job, ids) or request.dependencies))
    ids[job.key] = sent.job_id
    return sent


def dependencies(job: Job, ids: Mapping[str, str]) -> str:
    """Return sbatch's text for what a job waits for, of the jobs that have ids."""
    kinds = {"afterok": job.after, "afterany": job.behind}
    waits = {kind: [ids[key] for key in keys if key in ids] for kind, keys in kinds.items()}
    return ",".join(f"{kind}:{':'.join(found)}" for kind, found in waits.items() if found)


def send_one(job: Job, request: Request) -> SentJob:
    """Write a job's script, send it, and put it on record."""
    submission = request.submission
    file = submission.directory / "scripts" / f"{job.key}.sh"
    file.parent.mkdir(exist_ok=True)
    file.write_text(script(job, request))
    job_id = _sbatch(job, submission, file)
    sent = SentJob(
        key=job.key,
        step=job.step,
        kind=job.kind,
        job_id=job_id,
        first=job.first,
        count=job.count,
        array=job.array.partition("%")[0],
    )
    submission.record(sent)
    return sent


def _sbatch(job: Job, submission: Submission, file: Path) -> str:
    """Return the id of a job sent; where slurmctld is away for a moment, try again."""
    complaint = ""
    for attempt in range(_TRIES):
        if attempt:
            _LOG.info("sbatch: %s; trying again in %g s", complaint, _PAUSE_S)
            time.sleep(_PAUSE_S)
            if (taken := live_jobs(submission).get(job_name(job, submission))) is not None:
                return taken  # only the answer was lost
        done = ask(["sbatch", "--parsable", str(file)])
        if done.returncode == 0:
            return done.stdout.strip().partition(";")[0]
        complaint = done.stderr.strip() or done.stdout.strip()
        if not _BUSY.search(complaint):
            break
    raise RefusedError(f"sbatch refused {file}: {complaint}")
