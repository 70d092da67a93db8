"""The text of a job's script: what sbatch is asked for, and the few lines of shell around the stage."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btrm.hub import hub_cache, hub_home
from btrm.launch.jobs import Job
from btrm.launch.runtime import exports, image_lines, job_words, mount_lines, unset_line
from btrm.launch.site import Container, Site
from btrm.launch.submission import Plan, Submission
from btrm.runs import CODE, IMAGE, IMAGE_SHA256, Resources

# Delivered to every process of a step, ignored by those that do not know it, and harmless to an image's mount: USR2,
# which launchers commonly take, kills a container's FUSE mount and every Python that is still starting.
WARN_SIGNAL = "URG"
_FOR_ALL = frozenset({"reservation", "wckey", "nice", "comment"})
CONTROL_RESTARTS = 200
_LOOK = ("-m", "btrm.launch.inside")  # whether the image has what btrm needs, before any of it is imported
# MASTER_PORT: another one for another job and another restart, below those that the kernel deals out.
_FIRST_PORT, _PORTS = 20000, 12000


@dataclass(frozen=True, slots=True)
class Request:
    """What goes into a script beyond the job itself. `dependencies` is sbatch's own text: afterok:1:2."""

    submission: Submission
    plan: Plan
    site: Site
    dependencies: str = ""
    begin_s: int = 0
    exclude: str = ""


def script(job: Job, request: Request) -> str:
    """Return the script of a job. The text is submitit's; --dry-run prints the very text that sbatch is given."""
    from submitit.slurm import slurm as submitit_slurm

    text: str = submitit_slurm._make_sbatch_string(  # pyright: ignore[reportPrivateUsage]
        command=command(job, request), folder=str(request.submission.logs), **parameters(job, request)
    )
    return text + "\n"


def parameters(job: Job, request: Request) -> dict[str, Any]:
    """Return submitit's parameters for a job."""
    site, need = request.site.seen_by(job.resources.gpus), job.resources
    extra: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes"}
    extra["signal"] = f"{WARN_SIGNAL}@{min(site.warn_s, need.time_min * 60 // 4)}"  # not at the very start
    optional = {
        "array": job.array,
        "dependency": request.dependencies,
        "begin": f"now+{request.begin_s}" if request.begin_s else "",
    }
    extra |= {name: value for name, value in optional.items() if value}
    return {
        "map_count": job.count if job.kind == "array" else None,  # names an array's logs; its indices are in `extra`
        "job_name": job_name(job, request.submission),
        "time": need.time_min,
        "nodes": need.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": need.cpus,
        **({"mem": f"{need.mem_gb}GB"} if site.request_memory else {}),
        **gpu_parameters(need, site),
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "exclude": ",".join(filter(None, [site.slurm.get("exclude"), request.exclude])) or None,
        **_mail(job, site),
        "wckey": None,
        "stderr_to_stdout": True,
        "setup": _setup(job, request),
        "teardown": _teardown(job, request.submission),
        "srun_args": ["--kill-on-bad-exit=1", "--export=ALL"],  # whatever sbatch was told to hand on
        "additional_parameters": _switched({**extra, **_extras(job, site)}),
    }


def _switched(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return sbatch's options with those that take no value switched on (`hold=true`) or off (`requeue=false`)."""
    words = {"true": True, "false": False}
    known = {name: words.get(str(value).lower(), value) for name, value in options.items()}
    return {name: value for name, value in known.items() if value is not False}


def job_name(job: Job, submission: Submission) -> str:
    """Return the name by which a job is found in the queue."""
    return f"btrm-{submission.name}-{job.key}"


def _extras(job: Job, site: Site) -> dict[str, str]:
    """Return the site's and the user's own options; to a controller go those that do not say where and how it runs."""
    mine = {name: value for name, value in site.slurm.items() if name != "exclude"}
    return mine if job.kind != "control" else {name: value for name, value in mine.items() if name in _FOR_ALL}


def gpu_parameters(need: Resources, site: Site) -> dict[str, str]:
    """Return how this site wants to be asked for a node's GPUs; nothing where none are wanted."""
    if need.gpus == 0:
        return {}
    count = f"{site.gpu_type}:{need.gpus}" if site.gpu_type else str(need.gpus)
    return {"gres": f"gpu:{count}"} if site.gpu_request == "gres" else {"gpus_per_node": count}


def _mail(job: Job, site: Site) -> dict[str, str]:
    """Mail when a submission has ended: its last job is the controller."""
    return {"mail_type": "END,FAIL", "mail_user": site.mail_user} if site.mail_user and job.key == "control" else {}


def command(job: Job, request: Request) -> str:
    """Return what srun starts on each node: the runner, with the path of its submission and its part of the plan."""
    runner = ["-m", "btrm.launch.job", str(request.submission.directory), job.step, job.kind, str(job.first)]
    container, plan = _image(job, request.site), request.plan
    if container is None:
        return shlex.join([request.site.python or sys.executable, *runner])
    handed = [*job_environment(request.site, plan), "MASTER_ADDR", "MASTER_PORT"]
    return f"{job_words(container, bound(plan), handed)} {shlex.join([*_LOOK, *runner])}"


def _image(job: Job, site: Site) -> Container | None:
    """Return the image that a job runs in; a controller talks to the cluster and stays outside."""
    return None if job.kind == "control" else site.container


def bound(plan: Plan) -> list[str]:
    """Return what an image sees beside the site's binds: the run, the code and the hub's cache, never the home.

    Where one lies behind a link, so does the place that it leads to: the folder submitted from is bound over them all,
    and its links with it.
    """
    places = [str(Path(plan.root)), *([plan.code] if plan.code else []), *_hub_folders(plan.env).values()]
    return [*dict.fromkeys([*places, *(str(Path(place).resolve()) for place in places)])]


def _setup(job: Job, request: Request) -> list[str]:
    site, plan = request.site, request.plan
    values = job_environment(site, plan)
    lines = ["trap 'exit 143' TERM  # Slurm ends the job: it decides alone whether the job comes back"]
    lines += [f"umask {site.umask}"] if site.umask else []
    lines += site.setup
    if (container := _image(job, site)) is not None:
        lines.append(unset_line(container))
        known, nodes = request.submission.images, job.resources.nodes
        lines += image_lines(container, plan.image_sha256, plan.image_stat, nodes, known)
        lines += mount_lines(site.scratch, nodes)
    lines += [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    lines.append("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK")  # since 22.05 srun does not take it from sbatch
    if job.resources.nodes > 1:
        lines += [
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            f"MASTER_PORT=$(({_FIRST_PORT} + (SLURM_JOB_ID + 997 * ${{SLURM_RESTART_COUNT:-0}}) % {_PORTS}))",
            "export MASTER_ADDR MASTER_PORT",
        ]
    return lines


def job_environment(site: Site, plan: Plan) -> Mapping[str, str]:
    """Return the variables that a job's script sets: paths and switches, never a secret."""
    # PYTHONSAFEPATH: else `python -m` takes the checkout that sbatch was called in before the copy of the code.
    values = {"PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}
    if plan.code:
        values["PYTHONPATH"] = plan.code
    if plan.code_digest:
        values[CODE] = plan.code_digest
    if site.offline:
        values |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if site.container is not None:
        values |= exports(site.container, plan.code)
        values |= {IMAGE: site.container.image, IMAGE_SHA256: plan.image_sha256 or ""}
        values |= _caches(Path(plan.root) / ".cache") | _hub_folders(plan.env)
    return values | plan.env


def _caches(folder: Path) -> dict[str, str]:
    """Return places for caches, since there is no home inside an image; the site's own env wins."""
    own = {"MODELSCOPE_CACHE": "modelscope", "TRITON_CACHE_DIR": "triton"}  # these do not go by XDG_CACHE_HOME
    return {"XDG_CACHE_HOME": str(folder)} | {name: str(folder / place) for name, place in own.items()}


def _hub_folders(env: Mapping[str, str]) -> dict[str, str]:
    """Return the submitter's own folders of the hub, which prefetch fills and doctor looks at, where they are there.

    A site that names one in its env has its binds for it. A controller on a node was handed the same variables.
    """
    named = ("HF_HOME", "HF_HUB_CACHE")
    if any(name in env for name in named):
        return {}
    known = {**os.environ, **env}
    folders = {"HF_HOME": hub_home(known), **({"HF_HUB_CACHE": hub_cache(known)} if known.get("HF_HUB_CACHE") else {})}
    return {name: str(folder.absolute()) for name, folder in folders.items() if folder.is_dir()}


def _teardown(job: Job, submission: Submission) -> list[str]:
    """Put the job back into the queue where its task left the mark; the task's own exit code stays the job's.

    A controller has nothing that could run out of hope: it comes back until it has looked, full disk or not.
    """
    if job.kind == "control":
        condition = f'[ "$code" -ne 0 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {CONTROL_RESTARTS} ]'
        return ["code=$?", f'if {condition}; then scontrol requeue "$SLURM_JOB_ID" && sleep 60; fi', 'exit "$code"']
    return [
        "code=$?",
        f'mark={shlex.quote(str(submission.directory / "requeue"))}/"$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}"',
        'if [ -e "$mark" ]; then',
        '  rm -f "$mark"',
        '  scontrol requeue "$SLURM_JOB_ID" && sleep 60',
        "fi",
        'exit "$code"',
    ]
