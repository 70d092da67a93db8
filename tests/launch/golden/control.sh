#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=1
#SBATCH --dependency=afterany:7:8
#SBATCH --job-name=btrm-S1-control
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=END,FAIL
#SBATCH --mail-user=me@example.org
#SBATCH --mem=2GB
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/study/.jobs/S1/logs/%j_0_log.out
#SBATCH --partition=low
#SBATCH --requeue
#SBATCH --signal=URG@120
#SBATCH --time=30

# setup
trap 'exit 143' TERM  # Slurm ends the job: it decides alone whether the job comes back
export PYTHONUNBUFFERED=1
export PYTHONNOUSERSITE=1
export PYTHONSAFEPATH=1
export PYTHONPATH=/runs/study/.code/0123456789abcdef
export HF_HUB_OFFLINE=1
export HF_DATASETS_OFFLINE=1
export APPTAINERENV_PYTHONPATH=/runs/study/.code/0123456789abcdef
export BTRM_IMAGE=/images/btrm.sif
export BTRM_IMAGE_SHA256=5555555555555555555555555555555555555555555555555555555555555555
export XDG_CACHE_HOME=/runs/study/.cache
export MODELSCOPE_CACHE=/runs/study/.cache/modelscope
export TRITON_CACHE_DIR=/runs/study/.cache/triton
export HF_HOME=/home/me/huggingface
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/study/.jobs/S1/logs/%j_%t_log.out --kill-on-bad-exit=1 --export=ALL /opt/python -m btrm.launch.job /runs/study/.jobs/S1 control control 0


# teardown
code=$?
if [ "$code" -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 200 ]; then scontrol requeue "$SLURM_JOB_ID" && sleep 60; fi
exit "$code"
