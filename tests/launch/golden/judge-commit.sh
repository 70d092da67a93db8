#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=1
#SBATCH --dependency=afterok:8
#SBATCH --job-name=btrm-S1-judge.commit
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=4GB
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/study/.jobs/S1/logs/%j_0_log.out
#SBATCH --partition=low
#SBATCH --requeue
#SBATCH --signal=URG@120
#SBATCH --time=1440

# setup
trap 'exit 143' TERM  # Slurm ends the job: it decides alone whether the job comes back
export PYTHONUNBUFFERED=1
export PYTHONNOUSERSITE=1
export PYTHONSAFEPATH=1
export PYTHONPATH=/runs/study/.code/0123456789abcdef
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/study/.jobs/S1/logs/%j_%t_log.out --kill-on-bad-exit=1 --export=ALL /opt/python -m btrm.launch.job /runs/study/.jobs/S1 judge commit 0


# teardown
code=$?
mark=/runs/study/.jobs/S1/requeue/"$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"
if [ -e "$mark" ]; then
  rm -f "$mark"
  scontrol requeue "$SLURM_JOB_ID" && sleep 60
fi
exit "$code"
